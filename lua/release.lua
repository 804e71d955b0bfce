#!lua flags=allow-oom
-- release: processing -> scheduled. The job goes back unharmed, its attempt not counted.
-- KEYS 1 meta  2 replay  3 jobs  4 processing  5 days  6 wake  7.. buckets
-- ARGV 1 now (tests)  2 request id  3 number of buckets, then for each: day, first ms of the day, number of jobs;
--      then for each job: id, token as 16 digits, when ('<ms>' as 15 digits or '+<delay ms>'), failures as lines of
--      JSON ('' leaves them as they are)
-- Returns ok | moved, clock in µs, and with ok one letter a job: b back on the wheel, f fenced, m missing
-- Cost O(jobs log n), at most 1000 jobs.
-- Keeps I4 I5 I8 I9 I10
--#include clock
--#include digits
--#include replay
--#include contact
--#include record
--#include buckets
--#include wake
--#include holders
--#include refile
return refile('b', 1)
