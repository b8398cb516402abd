/* Planted bugs: a switch of the test build (-DBT_PLANTED_BUGS) that breaks one rule at a time, so
 * that a test can demand that the simulator notices. In every other build BT_BUG() is the constant
 * false and the compiler drops what it guards. */
#pragma once

/* Guards of the engine switched off, then the engine, the ledger, and the simulator's own server
 * and agent, which keep the same order of things as the real ones. */
#define BT_PLANTED(X)                                                                              \
	X(NO_MIN_GUARD, "min_in_rotation is not looked at")                                        \
	X(NO_STOP_GUARD, "stops what may still be in rotation")                                    \
	X(NO_DRAIN_GUARD, "stops what is not drained")                                             \
	X(UNDO_WRONG_STATE, "undo of a Switch puts back what was out before")                      \
	X(DRAIN_BINDS_BACK, "a rollback fails when its own drain runs out")                        \
	X(UNDO_FORWARD, "undoes a lane in the order it was done")                                  \
	X(GENERATION_REUSED, "a Switch takes the highest generation again")                        \
	X(OTHERS_KEPT, "when one balancer fails, the one before it keeps the new pool")            \
	X(ONE_MOVES_AGAIN, "routes to one move again and again")                                   \
	X(HOSTS_NOT_SUMMED, "balancers of one host each are not seen as one pool")                 \
	X(VIP_OFF_EARLY, "takes the address off while requests are in flight")                     \
	X(VIP_PRIOR_FORGOTTEN, "undo puts an address where there was none")                        \
	X(IN_WITHOUT_VIP, "puts in rotation on a host without the address")                        \
	X(WAIT_ENDS_AT_ONCE, "a Wait is over as soon as it begins")                                \
	X(WAIT_NEVER_ENDS, "a Wait never ends")                                                    \
	X(IGNORED_FAILS, "an ignored failure fails its lane")                                      \
	X(BACK_TO_ALL, "a flow's way back is about everything")                                    \
	X(BACK_PUTS_IN, "a flow's way back puts in rotation who was out")                          \
	X(INTENT_KEPT, "a failed Switch stays in the intent")                                      \
	X(ROLLBACK_RELEASE, "asks for a rollback plan to the new release")                         \
	X(ANY_RESULT, "a result of an earlier attempt counts")                                     \
	X(NO_RESEND, "a takeover forgets what is outstanding")                                     \
	X(UNKNOWN_IS_FAILED, "an unknown outcome is not undone")                                   \
	X(HALF_IS_NOTHING, "a start or stop that failed half-way is not undone")                   \
	X(STAGE_EARLY, "the next stage begins while a lane still runs")                            \
	X(CONFIRM_EARLY, "a Switch counts as confirmed when it is sent")                           \
	X(TOKEN_FORGOTTEN, "an older token is taken")                                              \
	X(DONE_FORGOTTEN, "a start forgets what was done")                                         \
	X(OLD_RUN_RECOVERED, "a start goes on with commands of a deployment that has ended")       \
	X(REPEAT_RUNS, "a repeat is run again")                                                    \
	X(PRIOR_FORGOTTEN, "a start forgets the recorded prior state")                             \
	X(SEND_BEFORE_COMMIT, "commands leave before their transaction")                           \
	X(ACK_BEFORE_COMMIT, "a result is acknowledged before its transaction")                    \
	X(CURSOR_FIRST, "the cursor is durable before what was accepted")                          \
	X(EFFECT_BEFORE_BEGUN, "the effect comes before `begun` is durable")                       \
	X(POST_BEFORE_FSYNC, "the result is posted before `done` is durable")                      \
	X(ADOPTION_STOPS, "giving an adoption back stops what was adopted")                        \
	X(ADOPTED_EARLY, "what was adopted is stopped before the cutover")                         \
	X(ADOPTION_FORGOTTEN, "what was adopted is not recorded")                                  \
	X(APPLY_UNCOMMITTED, "a failed commit changes memory all the same")                        \
	X(NEVER_AGAIN, "what may not be repeated is sent again when its outcome is unknown")       \
	X(NEVER_RECOVERED, "a start runs what may not be repeated again")                          \
	X(HOOK_FORGIVEN, "a program that failed does not fail its lane")                           \
	X(SILENCE_IS_YES, "an approval that nobody gave counts as given")                          \
	X(NO_CLOSING, "a run that fails ends without its closing stages")                          \
	X(RESTORED_TOKENS, "a restored store goes on with the backup's tokens")                    \
	X(RESTORED_NUMBER, "a restored store gives a number again that agents know")               \
	X(RESTORED_BUSY, "a restored store settles while agents still change something")           \
	X(SCRIPT_UNGUARDED, "a bundle's script may stop what is in rotation")                      \
	X(SPENT_UNDONE, "puts in rotation again where a bundle's scripts were at work")            \
	X(TOO_MANY_FAIL, "a bundle goes on though too few hosts would stay healthy")               \
	X(FILES_STAY, "a bundle's way back leaves the files of the revision that failed")

enum bt_planted_bug {
	BT_BUG_NONE,
#define X(id, words) BT_BUG_##id,
	BT_PLANTED(X)
#undef X
	/* clang-format off */
	BT_BUGS
	/* clang-format on */
};

#ifdef BT_PLANTED_BUGS
extern enum bt_planted_bug bt_planted_bug;
#define BT_BUG(name) (bt_planted_bug == (BT_BUG_##name))
#else
#define BT_BUG(name) 0
#endif
