package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/gateway/record"
)

// maxLead bounds how long a rotation may be under way.
const maxLead = 90 * 24 * time.Hour

// auditWait bounds what a rotation waits for the ledger.
const auditWait = 10 * time.Second

// runKeys lists, rotates and prints the keys of an installation's state folder.
func runKeys(ctx context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("keys", flag.ContinueOnError)
	w.addFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	lead := flags.Duration("lead", usualLead, "rotate: how `long` until the new one signs, of those that others must learn of")
	compromised := flags.Bool("compromised", false, "rotate: somebody else may have the old one; nothing that it signed is taken any more")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	k := keyVerb{installation: i, now: time.Now(), json: *asJSON, asked: rotation{lead: *lead, compromised: *compromised}, io: io}
	flags.Visit(func(f *flag.Flag) { k.leadGiven = k.leadGiven || f.Name == "lead" })
	switch {
	case len(words) == 0 || words[0] == "list" && len(words) == 1:
		return k.list()
	case words[0] == "print" && len(words) <= 2:
		return k.print(words[1:])
	case words[0] == "rotate" && len(words) == 2:
		return k.rotate(ctx, words[1])
	}
	return fmt.Errorf("%w: got %s, want list, print [NAME] or rotate NAME", errUsage, listed(words))
}

type keyVerb struct {
	installation
	now   time.Time
	json  bool
	asked rotation
	io    stdio

	leadGiven bool
}

// The states of keys in the list.
const (
	keySigns = "signs"
	keyNext  = "next"
	keyOld   = "old"   // what it signed is still taken
	keyFixed = "fixed" // is not rotated
)

// keyRow is one key in the list.
type keyRow struct {
	Name  string    `json:"name"`
	State string    `json:"state"`
	File  string    `json:"file"`
	Made  time.Time `json:"made,omitzero"`
	From  time.Time `json:"from,omitzero"`  // a next one's: when it signs
	Until time.Time `json:"until,omitzero"` // an old one's: when it goes; of a CA that signs, when its certificate ends
	ID    string    `json:"id,omitempty"`
	About string    `json:"about"`
}

func (k keyKind) row(state string, h keyHalf) keyRow {
	file := k.file
	r := keyRow{Name: k.name, State: state, Made: h.Made, ID: h.id(), About: k.about}
	switch {
	case state == keyNext:
		file, r.From = besideKey(file, nextSuffix), h.From
	case state == keyOld:
		file, r.Until = besideKey(file, oldSuffix), h.Until
	case h.Cert != nil:
		r.Until = h.Cert.NotAfter
	}
	r.File = file
	return r
}

// when is what is going to happen to a key.
func (r keyRow) when() string {
	switch {
	case r.State == keyNext:
		return "signs from " + stamp(r.From)
	case r.State == keyOld && r.Until.IsZero():
		return "stays"
	case r.State == keyOld:
		return "goes " + stamp(r.Until)
	case !r.Until.IsZero():
		return "ends " + stamp(r.Until)
	}
	return "-"
}

// rows are those of a kind.
func (v keyView) rows() []keyRow {
	all := []keyRow{v.kind.row(keySigns, v.Signs)}
	if v.Next != nil {
		all = append(all, v.kind.row(keyNext, *v.Next))
	}
	for _, old := range v.trustedOld() {
		all = append(all, v.kind.row(keyOld, old))
	}
	return all
}

func (v keyVerb) noKeys() error {
	return fmt.Errorf("there are none in %s; --dir names the folder of a `tidegate dev`, --config the configuration of a `tidegate serve`", v.key(""))
}

func (v keyVerb) list() error {
	var rows []keyRow
	var unread []error // hide no other key
	for _, k := range keyKinds() {
		switch set, err := readKeySet(v.key(""), k); {
		case err == nil:
			rows = append(rows, set.at(v.now).rows()...)
		case !errors.Is(err, fs.ErrNotExist): // else of another part, or not made yet
			unread = append(unread, err)
		}
	}
	for _, k := range fixedKeys() {
		if info, err := os.Stat(v.key(k.file)); err == nil {
			rows = append(rows, keyRow{Name: k.name, State: keyFixed, File: k.file, Made: info.ModTime(), About: k.about})
		}
	}
	if len(rows)+len(unread) == 0 {
		return fmt.Errorf("list keys: %w", v.noKeys())
	}
	return errors.Join(append(unread, v.show(rows))...)
}

func (v keyVerb) show(rows []keyRow) error {
	if v.json {
		return encodeAll(v.io.out, rows)
	}
	t := table(v.io.out, "KEY", "STATE", "FILE", "AGE", "WHEN", "ID", "WHAT FOR")
	for _, r := range rows {
		row(t, r.Name, r.State, r.File, age(r.Made, v.now), r.when(), dash(r.ID), r.About)
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is how old something is, in its largest unit.
func age(made, now time.Time) string {
	d := now.Sub(made)
	switch {
	case made.IsZero():
		return "-"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", max(0, d/time.Minute))
}

// print prints public halves: for a template, one kind's; as JSON all, each a
// list, since a rotation has several.
func (v keyVerb) print(names []string) error {
	all := map[string][]string{}
	for _, k := range keyKinds() {
		if len(names) == 1 && names[0] != k.name {
			continue
		}
		set, err := readKeySet(v.key(""), k)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if all[k.name], err = set.at(v.now).publicHalves(); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		if len(names) == 0 {
			return fmt.Errorf("print keys: %w", v.noKeys())
		}
		return fmt.Errorf("print keys: there is no %q in %s; `tidegate keys` lists those that there are", names[0], v.key(""))
	}
	if v.json {
		return encodeOne(v.io.out, all)
	}
	for _, k := range keyKinds() {
		for _, text := range all[k.name] {
			if len(names) == 0 {
				fmt.Fprintf(v.io.out, "# %s\n", k.name)
			}
			fmt.Fprintln(v.io.out, text)
		}
	}
	return nil
}

// rotatable finds the kind and says why a name is none.
func (v keyVerb) rotatable(name string) (keyKind, error) {
	is := func(k keyKind) bool { return k.name == name }
	kinds, fixed := keyKinds(), fixedKeys()
	if i := slices.IndexFunc(kinds, is); i >= 0 {
		return kinds[i], nil
	}
	if i := slices.IndexFunc(fixed, is); i >= 0 {
		return keyKind{}, fmt.Errorf("rotate key: %s is not rotated: it %s", name, fixed[i].about)
	}
	return keyKind{}, fmt.Errorf("rotate key: there is no %q to rotate; `tidegate keys` lists them. TLS certificates of the configuration are files of yours: put new ones in their place", name)
}

// demands checks what is asked against the kind.
func (v keyVerb) demands(k keyKind) (rotation, error) {
	r := v.asked
	switch {
	case r.compromised && k.forever:
		return r, fmt.Errorf("%w: --compromised is not of %s: what the old one signed must verify for ever. Its anchors in the ledger show what was changed since", errUsage, k.name)
	case r.compromised && v.leadGiven && r.lead > 0:
		return r, fmt.Errorf("%w: --compromised makes the new one sign at once, and --lead %s later; want one of them", errUsage, r.lead)
	case r.compromised || k.lead == 0 && !v.leadGiven:
		r.lead = 0
	case k.lead == 0:
		return r, fmt.Errorf("%w: --lead is of keys that others must learn of; a new %s is at work at once", errUsage, k.name)
	}
	if r.lead < 0 || r.lead > maxLead {
		return r, fmt.Errorf("%w: got --lead %s, want 0 to %s", errUsage, r.lead, maxLead)
	}
	return r, nil
}

func (v keyVerb) rotate(ctx context.Context, name string) error {
	k, err := v.rotatable(name)
	if err != nil {
		return err
	}
	r, err := v.demands(k)
	if err != nil {
		return err
	}
	if err := ownFolder(v.key("")); err != nil {
		return fmt.Errorf("rotate key: %w", err)
	}
	unlock, err := lockKeys(v.key(""))
	if err != nil {
		return fmt.Errorf("rotate key: %w", err)
	}
	defer unlock()
	is, err := rotateKey(v.key(""), k, r, v.now)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate key: %s is not in %s; the part that has it makes it on its first start", k.file, v.key(""))
	}
	if err != nil {
		return err
	}
	if err := is.publish(v.key("")); err != nil {
		return err
	}
	v.audit(ctx, is)
	return v.rotated(is)
}

// audit keeps who rotated what, where control's key is at hand; a gateway apart
// has its log. A ledger that is away holds nothing up: a stolen key can't wait.
func (v keyVerb) audit(ctx context.Context, is keyView) {
	if !isFile(v.key("control.pem")) {
		return
	}
	detail := is.Signs.id() + " signs"
	if is.Next != nil {
		detail = is.Next.id() + " signs from " + stamp(is.Next.From)
	}
	if v.asked.compromised {
		detail += "; the old one is trusted no more"
	}
	ctx, cancel := context.WithTimeout(ctx, auditWait)
	defer cancel()
	err := v.asControl(ctx, "rotate keys", func(l *ledger.Ledger) error { return l.Audit(ctx, localUser(), "key.rotated", is.kind.name, detail) })
	if err != nil {
		fmt.Fprintln(v.io.err, "it is rotated, and not in the audit log:", record.Visible(err.Error()))
	}
}

// rotated says what is new.
func (v keyVerb) rotated(is keyView) error {
	name, after := is.kind.name, is.kind.now
	row := is.kind.row(keySigns, is.Signs)
	if is.Next != nil {
		row, after = is.kind.row(keyNext, *is.Next), is.kind.after
	}
	if v.json {
		return encodeOne(v.io.out, row)
	}
	if is.Next != nil {
		fmt.Fprintf(v.io.out, "the next %s signs from %s; until then the old one does\n", name, stamp(is.Next.From))
	} else {
		fmt.Fprintf(v.io.out, "%s is new\n", name)
	}
	if v.asked.compromised {
		after = strings.TrimSpace(strings.TrimSuffix(after, oldTaken) + " " + oldRefused)
	}
	fmt.Fprintln(v.io.err, after)
	return nil
}

// ownFolder refuses to leave files that the folder's owner can't read: root's
// in a service's, which would open no session any more.
func ownFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid, ok := owner(info); ok && uid != os.Geteuid() {
		return fmt.Errorf("%s is of user %d and you are %d; its files must stay that user's: sudo -u '#%d' tidegate keys …", dir, uid, os.Geteuid(), uid)
	}
	return nil
}
