//! Clients that others wrote, through the running agent.
