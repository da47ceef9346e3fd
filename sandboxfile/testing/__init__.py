"""What ships for tests: the promises every engine keeps, and engines that make tests small."""
