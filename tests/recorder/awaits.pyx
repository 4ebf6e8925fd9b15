# cython: language_level=3
"""Coroutines and generators made by Cython, for test_awaitables."""


async def waits(wait):
    await wait()


async def deep(wait, int n):
    if n:
        await deep(wait, n - 1)
    else:
        await wait()


async def numbers(wait):
    await wait()
    yield 1


cdef class Awaitable:
    cdef object wait

    def __init__(self, wait):
        self.wait = wait

    def __await__(self):
        return self.wait().__await__()
