"""PostgreSQL's programs and throw-away instances on this host."""

from shared.errors.families import Refused, Unavailable


class ProgramMissing(Refused):
    """No directory holds the PostgreSQL programs of the major version that is needed."""

    code = "program-missing"
    hint = "Install that version here, or add its bin directory to drill.program_directories."


class ProgramFailed(Refused):
    """A PostgreSQL program ended with an error; the fact has its last words."""

    code = "program-failed"
    hint = "Read the program's own message; its manual page explains the exit status."


class InstanceNotStarted(Refused):
    """The restored cluster did not open; the fact has the last lines of the server's log."""

    code = "instance-not-started"
    hint = "The server's own words say what is wrong with the data or its recovery."


class InstanceLacksLibrary(InstanceNotStarted):
    """The restored cluster needs a library, locale or parameter that this host does not have."""

    code = "instance-lacks-library"
    hint = "Add the extension's or collation's package to the drill image: the data may be good."


class ScratchRefused(Refused):
    """A scratch directory in which no instance may run: owner, mode or length of its path."""

    code = "scratch-refused"
    hint = "Give a short path on a writable file system, owned by the account of the worker."


class InstanceStarved(Unavailable):
    """The drill host ran out of disk or memory: nothing is said about the backup."""

    code = "instance-starved"
    hint = "Give the drill host more of what the message names; the drill is inconclusive."


class InstanceTimeout(Unavailable):
    """The restored cluster was not open in time: nothing is said about the backup."""

    code = "instance-timeout"
    hint = "Raise drill.start_timeout_s, or give the drill host faster disks."


class ProgramTimeout(Unavailable):
    """A PostgreSQL program did not end in time and was killed."""

    code = "program-timeout"
    hint = "Give it more time, or look at what the program was waiting for."
