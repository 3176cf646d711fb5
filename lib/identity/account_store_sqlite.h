#pragma once

#include "identity/account_store.h"

// The account store of one process: the file auth.db in a folder, mode 0600, SQLite in WAL mode
// with synchronous=FULL, so what was put is on the disk when put returns. The folder is made when
// it is missing. A second process cannot open it at the same time.

// IO: cannot be opened, or another process has it. CORRUPT: not our file, or of a newer version.
enum status account_store_sqlite_create(struct str folder, struct error *error,
                                        struct account_store **out_store);
