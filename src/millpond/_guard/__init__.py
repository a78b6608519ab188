"""The guard: any callable under a limit of time, in worker processes that may be killed at any moment.

Theory of operation::

    the caller's thread                                           worker (of a supervisor, see `_workers`)
    -------------------                                           ----------------------------------------
    Guard.call / Guard.map / with_timeout
    calls, functions   the function, by name or by value
    parcels, reducers  a pickle with the buffers beside it
    switchboard        one of the threads that wait leads
    call_pool          reserves a slot, writes what is large -->  call_handler   adopts what changed around the caller,
                       there, gives the task to a worker                         reads the slot, runs the function,
    guarded_call       <------ the answer, large parts in the slot               writes the result to the same slot
    result_slots       lends the slot to the user's arrays; it is free again with the last of them
    call_errors        or says which call on which item was ended, and where it hung
"""
