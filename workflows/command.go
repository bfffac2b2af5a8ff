package workflows

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

const helpText = "Commands, one at the start of a new comment: `/tidegate explain`, `/tidegate extend [id] 30m why…`, " +
	"`/tidegate revoke [id]`, `/tidegate hold [id] why…`, `/tidegate resume [id]`, `/tidegate approve H7 3fa9c2d1`, `/tidegate deny H7`, `/tidegate retry`, `/tidegate help`."

func (a *Activities) obey(ctx context.Context, ref Ref, c Command) (string, error) {
	switch c.Verb {
	case VerbHelp:
		return helpText, nil
	case VerbExplain:
		return a.explain(ctx, ref)
	case VerbRevoke:
		return a.commandRevoke(ctx, ref, c)
	case VerbHold, VerbResume:
		return a.commandPause(ctx, ref, c)
	case VerbExtend:
		return a.commandExtend(ctx, ref, c)
	case VerbRetry:
		return a.commandRetry(ctx, ref, c)
	case VerbApprove, VerbDeny:
		return a.commandAnswer(ctx, ref, c)
	}
	return "", access.Errorf(access.CodeInvalid, "There is no such command. %s", helpText)
}

func (a *Activities) explain(ctx context.Context, ref Ref) (string, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("read pull request %s: %w", ref, err)
	}
	s, err := a.assess(ctx, pull)
	if err != nil {
		return "", err
	}
	var lines []string
	if s.refusal != "" {
		lines = append(lines, s.refusal)
	}
	for _, c := range s.eval.Changes {
		if r, ok := s.approvals[c.Request.ID]; ok {
			lines = append(lines, c.Request.ID+": "+flat(r))
		}
	}
	if s.policy != nil {
		lines = append(lines, flat(*s.policy))
	}
	if len(lines) == 0 {
		return "This pull request asks for no access.", nil
	}
	return strings.Join(lines, " "), nil
}

func flat(r access.Reason) string {
	parts := []string{r.Text}
	for _, c := range r.Children {
		parts = append(parts, flat(c))
	}
	return strings.Join(parts, " ")
}

// choose finds the grants of the pull request that the command is about: the
// one that its first word names, or all of them. It answers with the other words.
func (a *Activities) choose(ctx context.Context, ref Ref, args []string) ([]access.Grant, []string, error) {
	rows, err := a.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return nil, nil, fmt.Errorf("read grants of %s: %w", ref, err)
	}
	of, rest := chosen(rows, args)
	if len(of) == 0 {
		return nil, nil, errNoneOpen
	}
	return of, rest, nil
}

var errNoneOpen = refuse(access.CodeNotFound, "No grant of this pull request is open.")

func chosen(rows []access.Grant, args []string) ([]access.Grant, []string) {
	if len(args) > 0 {
		for _, row := range rows {
			if row.Key.ID == args[0] {
				return []access.Grant{row}, args[1:]
			}
		}
	}
	var open []access.Grant
	for _, row := range rows {
		if !row.State.Ended() {
			open = append(open, row)
		}
	}
	return open, args
}

// apart parts the grants that the person holds from the others.
func apart(rows []access.Grant, u access.User) (own, others []access.Grant) {
	for _, g := range rows {
		if isHolder(g, u) {
			own = append(own, g)
		} else {
			others = append(others, g)
		}
	}
	return own, others
}

func isHolder(g access.Grant, u access.User) bool {
	return g.Plan.Receives(u.ID) || u.ID != 0 && g.Pull.Author.ID == u.ID
}

func (a *Activities) commandRevoke(ctx context.Context, ref Ref, c Command) (string, error) {
	rows, why, err := a.toRevoke(ctx, ref, c)
	if err != nil {
		return "", err
	}
	var errs []error
	var done []string
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	own, others := apart(rows, c.By)
	for _, g := range slices.Concat(own, others) { // each by itself: one that is not theirs keeps none of the others open
		err := a.mayRevoke(asking, g, c.By)
		if err == nil {
			err = a.revoke(ctx, ending{key: g.Key, state: access.StateRevoked, by: c.By.Login, why: why})
		}
		if err == nil {
			done = append(done, g.Key.ID)
		}
		errs = append(errs, err)
	}
	return revokedWords(done, errs)
}

// toRevoke is what a command revokes, and the words it does it with. What it
// revoked before is among that: it is repeated where that was not remembered.
func (a *Activities) toRevoke(ctx context.Context, ref Ref, c Command) ([]access.Grant, string, error) {
	rows, err := a.Ledger.GrantsOf(ctx, ref)
	if err != nil {
		return nil, "", fmt.Errorf("read grants of %s: %w", ref, err)
	}
	of, rest := chosen(rows, c.Args)
	why := clip(strings.TrimSpace(fmt.Sprintf("Revoked by %s. %s", c.By.Login, strings.Join(rest, " "))))
	for _, g := range rows {
		if len(rest) == len(c.Args) && revokedSo(g, why) {
			of = append(of, g)
		}
	}
	if len(of) == 0 {
		return nil, "", errNoneOpen
	}
	return of, why, nil
}

// revoke ends a grant in the ledger; one that something else ended is a refusal.
func (a *Activities) revoke(ctx context.Context, e ending) error {
	g, err := a.end(ctx, e)
	a.wake(ctx, e.key)
	if err == nil && !revokedSo(g, e.why) {
		err = refuse(access.CodeEnded, "%s has ended already: it is %s.", e.key.ID, g.State)
	}
	return err
}

func revokedSo(g access.Grant, why string) bool {
	return g.State == access.StateRevoked && g.Why == why
}

// revokedWords says what was revoked, and why the rest was not. What may only
// have failed for now is an error: it is tried again.
func revokedWords(done []string, errs []error) (string, error) {
	var not []string
	for _, err := range errs {
		if err != nil && !isFinal(err) {
			return "", err
		}
		if err != nil {
			not = append(not, access.Message(err))
		}
	}
	if len(done) == 0 {
		return "", errors.Join(errs...)
	}
	return strings.Join(append([]string{"revoked " + strings.Join(done, ", ") + "."}, not...), " "), nil
}

// mayRevoke: who receives, who asked, who may approve, and operators.
func (a *Activities) mayRevoke(ctx context.Context, g access.Grant, u access.User) error {
	if isHolder(g, u) {
		return nil
	}
	ctx = Urgent(ctx)
	may, err := a.approvesToday(ctx, g, u)
	if may || err != nil && !isUnseen(err) {
		return err
	}
	operators, operatorsErr := a.parties(ctx, a.Rules.Operators)
	if operatorsErr != nil {
		return operatorsErr
	}
	if access.Includes(operators, u.ID) {
		return nil
	}
	if err := cmp.Or(err, unshown(a.Rules.Operators, operators)); err != nil {
		return fmt.Errorf("may %s revoke %s: %w", u.Login, g.Key, err)
	}
	return refuse(access.CodeDenied, "Only who asked for %s, who receives it, its approvers and operators can revoke it.", g.Key.ID)
}

func (a *Activities) commandExtend(ctx context.Context, ref Ref, c Command) (string, error) {
	rows, rest, err := a.choose(ctx, ref, c.Args)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", access.Errorf(access.CodeInvalid, "Several grants are open here; say which: `/tidegate extend %s 30m why…`.", rows[0].Key.ID)
	}
	g := rows[0]
	if !isHolder(g, c.By) {
		return "", access.Errorf(access.CodeDenied, "Only who asked for %s and who receives it can ask for more time.", g.Key.ID)
	}
	more, why, err := parseExtend(rest)
	if err != nil {
		return "", err
	}
	g, err = a.extend(ctx, ExtendInput{Key: g.Key, By: c.By, Why: why, Until: g.NotAfter.Add(more)})
	if err != nil {
		return "", err
	}
	a.wake(ctx, g.Key)
	return fmt.Sprintf("%s now ends at %s.", g.Key.ID, g.NotAfter.UTC().Format(time.RFC3339)), nil
}

func parseExtend(args []string) (time.Duration, string, error) {
	usage := access.Errorf(access.CodeInvalid, "Say how long and why: `/tidegate extend 30m the import still runs`.")
	if len(args) < 2 {
		return 0, "", usage
	}
	more, err := time.ParseDuration(args[0])
	if err != nil || more < time.Second || more > maxLength {
		return 0, "", usage
	}
	return more.Truncate(time.Second), clip(strings.Join(args[1:], " ")), nil
}

func (a *Activities) commandRetry(ctx context.Context, ref Ref, c Command) (string, error) {
	rows, _, err := a.choose(ctx, ref, c.Args)
	if access.CodeOf(err) == access.CodeNotFound {
		return a.retryReading(ctx, ref, c, err)
	}
	if err != nil {
		return "", err
	}
	for _, g := range rows {
		if !isHolder(g, c.By) {
			return "", access.Errorf(access.CodeDenied, "Only who asked for %s and who receives it can try again.", g.Key.ID)
		}
		if err := a.startIfOpen(ctx, g); err != nil {
			return "", fmt.Errorf("start grant %s: %w", g.Key, err)
		}
		a.wake(ctx, g.Key)
	}
	return "trying again.", nil
}

// retryReading is a retry before there is a grant: every command is followed
// by a reading of the whole pull request.
func (a *Activities) retryReading(ctx context.Context, ref Ref, c Command, none error) (string, error) {
	pull, err := a.Forge.Pull(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("read pull request %s: %w", ref, err)
	}
	if !pull.Open {
		return "", none
	}
	if c.By.ID == 0 || pull.Author.ID != c.By.ID {
		return "", access.Errorf(access.CodeDenied, "Only who opened the pull request can have it read again; it is read every now and then by itself.")
	}
	return "reading the pull request again.", nil
}

var holdName = regexp.MustCompile(`\A[Hh]([1-9][0-9]{0,8})\z`)

// commandAnswer answers a held operation: by those whom its rule asks, minus
// everybody who could not approve this grant.
func (a *Activities) commandAnswer(ctx context.Context, ref Ref, c Command) (string, error) {
	h, err := a.findHeld(ctx, ref, c)
	if said := h.Answer; err != nil && c.Verb == VerbDeny && said != nil && !said.Approve && said.By.ID == c.By.ID {
		return h.Name() + " is denied.", nil // the first time was not remembered
	}
	if err != nil {
		return "", err
	}
	return a.answer(ctx, ref, h, answerOf{c.By, c.Verb == VerbApprove})
}

// answerOf is who says yes or no.
type answerOf struct {
	by      access.User
	approve bool
}

// answer stores an answer to what waits, if the person may give it.
func (a *Activities) answer(ctx context.Context, ref Ref, h access.Held, of answerOf) (string, error) {
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if !of.approve {
		asking = Urgent(asking)
	}
	if err := a.mayAnswer(asking, ref, h, of.by); err != nil {
		return "", err
	}
	answer := access.Answer{Held: h.ID, Digest: h.Digest, Approve: of.approve, By: of.by, At: a.now()}
	err := a.Ledger.AnswerHeld(ctx, answer)
	if access.CodeOf(err) == access.CodeConflict {
		return "", refuse(access.CodeConflict, "%s does not wait any more: it was answered, cancelled, or its time was up.", h.Name())
	}
	if err != nil {
		return "", fmt.Errorf("answer %s: %w", h.Name(), err)
	}
	soon, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	a.tell(soon, Hint{Kind: HintHeld, Ref: ref, Held: h.ID})
	if answer.Approve {
		return h.Name() + " is approved and runs once.", nil
	}
	return h.Name() + " is denied.", nil
}

// waits is nil while an answer can still be given.
func (a *Activities) waits(h access.Held) error {
	if h.State != access.HeldOpen || !a.now().Before(h.Expires) {
		return refuse(access.CodeEnded, "%s does not wait any more: it was answered, cancelled, or its time was up.", h.Name())
	}
	return nil
}

func (a *Activities) findHeld(ctx context.Context, ref Ref, c Command) (access.Held, error) {
	if len(c.Args) == 0 || !holdName.MatchString(c.Args[0]) || (c.Verb == VerbApprove && len(c.Args) < 2) {
		return access.Held{}, refuse(access.CodeInvalid, "Name what is held as it is shown: `/tidegate approve H7 3fa9c2d1` or `/tidegate deny H7`.")
	}
	number, err := strconv.Atoi(c.Args[0][1:])
	if err != nil {
		return access.Held{}, fmt.Errorf("parse hold number: %w", err)
	}
	h, err := a.Ledger.HeldByNumber(ctx, ref, number)
	if access.CodeOf(err) == access.CodeNotFound {
		return h, refuse(access.CodeNotFound, "Nothing called H%d is held here.", number)
	}
	if access.CodeOf(err) == access.CodeDenied { // it is not as its gateway wrote it
		return h, refuse(access.CodeDenied, "%s", access.Message(err))
	}
	if err != nil {
		return h, fmt.Errorf("read H%d: %w", number, err)
	}
	if len(c.Args) > 1 && c.Verb == VerbApprove && (len(h.Digest) < 8 || !strings.EqualFold(c.Args[1], h.Short())) {
		return h, refuse(access.CodeDenied, "The digest does not match what %s shows. Copy the line from its check run.", h.Name())
	}
	return h, a.waits(h)
}

func (a *Activities) mayAnswer(ctx context.Context, ref Ref, h access.Held, u access.User) error {
	g, err := a.Ledger.Grant(ctx, h.Grant)
	if err != nil {
		return fmt.Errorf("read grant %s: %w", h.Grant, err)
	}
	why, err := a.barred(ctx, ref, g, u)
	if err != nil {
		return err
	}
	if why != "" {
		return refuse(access.CodeDenied, "You can't answer %s: somebody who %s can't agree to it.", h.Name(), why)
	}
	asked, err := a.isAsked(ctx, h.Ask, u)
	if err != nil {
		return err
	}
	if !asked {
		return refuse(access.CodeDenied, "You can't answer %s: its rule asks %s.", h.Name(), names(h.Ask))
	}
	return nil
}

func names(ps []access.Party) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

func orText(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
