"""Engines that start an installed server, vLLM or SGLang, as a child process, and speak to it as to any server."""
