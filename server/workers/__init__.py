"""One server on several cores: a parent process accepts the connections, and worker processes answer them.

`pool.WorkerPool` is the parent's side, `link.ParentLink` a worker's. Two sockets join them: over one the parent hands
connections down, over the other both send the messages of `messages`.
"""
