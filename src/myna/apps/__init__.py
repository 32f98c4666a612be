"""A model put to work: prompts, tools, flows, agents, documents, SQL. No torch: anything that completes a conversation will do."""
