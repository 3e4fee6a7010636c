"""Google's own implementation of the sealed stream, as the oracle of what seals and what opens."""

import io

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

_URL = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"

streaming_aead.register()


def seal(data_key: bytes, aad: bytes, plain: bytes, segment_size: int) -> bytes:
    stored = _KeepOpen()
    with _primitive(data_key, segment_size).new_encrypting_stream(stored, aad) as stream:
        stream.write(plain)
    return stored.getvalue()


def open_(data_key: bytes, aad: bytes, stored: bytes, segment_size: int) -> bytes:
    """Raises tink.TinkError for anything but an untouched object."""
    source = io.BytesIO(stored)
    with _primitive(data_key, segment_size).new_decrypting_stream(source, aad) as stream:
        return bytes(stream.read())


class _KeepOpen(io.BytesIO):
    """Tink closes its destination; the bytes are wanted afterwards."""

    def close(self) -> None:
        """Stays open."""


def _primitive(data_key: bytes, segment_size: int) -> streaming_aead.StreamingAead:
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=segment_size, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(params=params, key_value=data_key)
    data = tink_pb2.KeyData(
        type_url=_URL,
        value=key.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_id=1,
                status=tink_pb2.ENABLED,
                output_prefix_type=tink_pb2.RAW,
                key_data=data,
            )
        ],
    )
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)
