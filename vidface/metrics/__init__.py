"""What a set of descriptors is worth: mAP, TAR at FAR, CMC and more, defined to the last tie."""
