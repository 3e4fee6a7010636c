"""Edge 1, the control plane on Azure Functions: decides and records, never moves backup bytes."""
