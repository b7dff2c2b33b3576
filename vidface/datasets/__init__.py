"""Files of public benchmarks and challenges, read lazily and without trust."""
