#pragma once

#include "base/error.h"
#include "base/str.h"

// The worker's folder on disk: whose it is and that nobody else uses it. Main thread.

enum { IDENTITY_SIZE = 32 };

struct data_folder {
    char *path;
    int lock;                         // held as long as it is open; -1: not
    char identity[IDENTITY_SIZE + 1]; // hex; random, made once per folder
};

// Makes the folder when it is not there, locks it, reads or makes its identity. IO: the error says
// why, also when another process uses the folder.
enum status data_folder_open(struct data_folder *folder, struct str path, struct error *error);
void data_folder_close(struct data_folder *folder); // fine when opening failed
