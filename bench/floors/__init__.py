"""What the same work costs without Pronghorn: bare transports, codecs, and other pools."""
