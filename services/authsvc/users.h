#pragma once

#include "authsvc/work.h"

// A person's account: registering, logging in, profile and plan, password, the end.

enum status users_register(struct work *work);
enum status users_login(struct work *work);
enum status users_refresh_token(struct work *work);
enum status users_get_profile(struct work *work);
enum status users_update_profile(struct work *work);
enum status users_change_password(struct work *work);
enum status users_delete(struct work *work);

// A record with a new id, not stored yet. Not on a loop: it hashes the password, which must be
// checked already (password_check_rules). EXHAUSTED: too many are waiting.
enum status user_make(struct str email, struct str password, struct arena *arena,
                      struct error *error, user_record *out_user);
