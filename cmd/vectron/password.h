#pragma once

#include "vectron/session.h"

// A person's password, from a file or typed on the terminal. One thread.

#define PASSWORD_SETTING                                                               \
    {                                                                                  \
        "password-file", "VECTRON_PASSWORD_FILE", SETTING_STR, false, "",              \
            "read the password from this file (- is standard input) instead of asking" \
    }

// Fills the session's error.
enum status password_read(struct session *session, struct str *out_password);
