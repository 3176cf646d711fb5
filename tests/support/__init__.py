"""What the tests of the real binaries share."""
