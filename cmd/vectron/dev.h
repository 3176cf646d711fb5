#pragma once

// `vectron dev`: the five services in one process, on loopback, with one data directory. They are
// the same services as the separate binaries; calls between them are delivered inside the process
// (inproc: addresses) instead of over TCP. The first start makes the secrets and an admin account.

int dev_main(int argc, char **argv); // argv[0] is "dev"; the exit code
