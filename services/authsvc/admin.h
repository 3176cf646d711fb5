#pragma once

#include "authsvc/work.h"
#include "base/config.h"

// The admin that the settings name. Whoever has that e-mail is made an admin at start; when nobody
// has it the account is made with the password that the settings give. An account that was no admin
// before gets that password too and its logins end, since it may be somebody else's who was faster
// than the operator; an admin keeps the password that he has.

struct admin;

// INVALID: no e-mail address, or a password that is against the rules or without an e-mail. IO: the
// password's file. *out_admin is NULL when the settings name none.
enum status admin_create(const struct config *config, struct error *error,
                         struct admin **out_admin);
void admin_destroy(struct admin *admin); // admin may be NULL

// Do it. Not on a loop. What the store says; trying again is fine. admin may be NULL.
enum status admin_ensure(struct admin *admin, struct accounts *accounts, struct error *error);

// The same for the e-mail and password of a MakeAdmin; both must be given.
enum status admin_make(struct work *work);
