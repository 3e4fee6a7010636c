"""What both edges share: pure rules, the repository, the catalogue and the jobs between them."""
