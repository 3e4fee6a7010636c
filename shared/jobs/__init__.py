"""Jobs between the edges: messages, queues, leases."""
