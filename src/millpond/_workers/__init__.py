"""Worker processes: a zygote that forks them, the child they run, the supervisor that watches them.

Theory of operation::

    training process                     zygote (one thread)            worker (forked from the zygote)
    ----------------                     -------------------            -------------------------------
    zygote_for(preload)   -- Popen -->   imports the preload set
    Zygote.spawn()        -- fds ---->   fork ----------------------->  names itself, takes PDEATHSIG
                          <- pidfd ---   "forked" on the report socket
    START (handler, path, environment, cwd) ------ task socket ------>  unpickles the handler, attaches it
                          <----------------------- task socket ------   READY
    TASK ... TASK         ----------------------------------------->    handler(payload, progress)
                          <-----------------------------------------    RESULT or ERROR, in order
    (the worker dies)     <- "exited" -  reaps it, kills its group
    replacement, then the dead worker's tasks again

Who dies with whom: the zygote watches the training process (its pidfd), a worker dies with the zygote (PDEATHSIG).
Workers hold no state that matters: what they were doing is given to another one, after they were reaped.
"""
