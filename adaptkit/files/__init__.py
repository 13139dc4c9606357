"""What lies on disk: paths, the hub, hashes, damaged files named, atomic and staged writing."""
