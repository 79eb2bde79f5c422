"""The command line. A verb parses, calls one public function and prints its result."""
