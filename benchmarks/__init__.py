"""The same work done by oodlib and by what people would otherwise run, side by side: `make bench`."""
