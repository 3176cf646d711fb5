#pragma once

#include "base/config.h"
#include "base/error.h"
#include "net/net.h"

// What `vectron dev` makes in its data directory when it is new, and shows at every start: the
// admin account (admin-login: e-mail and password) and an SDK token of its own (sdk-token), both
// mode 0600. The secret of the tokens (vectron.secret) is the services' own business. Main thread.

struct first_start {
    char folder[2048];
    char email[256];
    char password[64];
    char *sdk_token;
    bool is_first;
};

// Make the folder; read the login, or make one up.
enum status first_start_open(struct str data_dir, struct error *error, struct first_start *out);
// Tell the auth service which account must be an admin.
enum status first_start_configure_auth(const struct first_start *first_start,
                                       struct config *auth_config, struct error *error);
// The services run: log in and make the SDK token, if there is none that works.
enum status first_start_finish(struct first_start *first_start, struct net *net,
                               struct error *error);
void first_start_print(const struct first_start *first_start);
void first_start_close(struct first_start *first_start);
