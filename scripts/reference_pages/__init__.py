"""What the code says of itself, as the bodies of reference pages: one module per page."""
