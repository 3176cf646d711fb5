#pragma once

#include "api/rpc.h"
#include "api/vectron.pb-c.h"
#include "base/error.h"
#include "base/str.h"

// What users say of the results they got, kept in a SQLite file for the reranker to learn from. The
// file and its folder are made with the first feedback. Many threads of the pool; one lock.

struct feedback;

struct feedback *feedback_create(struct str path);
void feedback_destroy(struct feedback *feedback); // feedback may be NULL

enum { FEEDBACK_ID_SIZE = 32 };

struct feedback_origin {
    struct str user_id;
    struct str collection;
    int64_t at; // Unix seconds
};

// INVALID: no items, too many of something, or a relevance outside 0 to 5; the error names it.
enum status feedback_check(const Vectron__V1__SubmitFeedbackRequest *request, struct error *error);
// Stored durably, all of it or nothing. IO: SQLite's words. Waits for the disk: not on a loop.
enum status feedback_store(struct feedback *feedback, const struct feedback_origin *origin,
                           const Vectron__V1__SubmitFeedbackRequest *request, struct error *error,
                           char out_id[static FEEDBACK_ID_SIZE + 1]);

// Users of whom there is feedback, by id.
enum { FEEDBACK_PAGE_USERS = 500 };
struct feedback_users {
    struct str ids[FEEDBACK_PAGE_USERS]; // in the arena
    uint32_t count;
};

// Those behind after (empty: from the first), as many as fit. None when there is no file yet. IO.
// Not on a loop.
enum status feedback_list_users(struct feedback *feedback, struct str after, struct arena *arena,
                                struct error *error, struct feedback_users *out_users);
// Everything that this user said, durably. IO. Not on a loop.
enum status feedback_forget_user(struct feedback *feedback, struct str user_id,
                                 struct error *error);

// The handler of SubmitFeedback; context is the gateway.
void feedback_submit(struct rpc *rpc, void *context);
