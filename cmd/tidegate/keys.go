package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/gateway/record"
)

// usualLead is how long before it signs a new key is made known.
const usualLead = 24 * time.Hour

// keyKind is one of the installation's keys that people may rotate.
type keyKind struct {
	name, file string
	ssh        bool          // printed as SSH has it, else as PEM
	public     string        // the file with its public halves, kept up to date; none if empty
	lead       time.Duration // others must learn of a new one before it signs
	about      string
	after      string // what is to be done after a rotation
}

// now is what is to be done after one without a lead.
func (k keyKind) now() string {
	if k.lead == 0 {
		return k.after
	}
	return "It signs at once: bring the line of `tidegate keys print " + k.name + "` to all that trust the old one, and take that out. Until then they refuse what is signed."
}

func keyKinds() []keyKind {
	return []keyKind{
		{"user-ca", "ssh-user-ca.pem", true, userCAFile, usualLead, "signs the certificates with which sessions log in at hosts",
			"Bring both lines to TrustedUserCAKeys of every host before then, and take the old one out a day later; nothing is restarted."},
		{"host-ca", "ssh-host-ca.pem", true, hostCAFile, usualLead, "vouches for the gateway's SSH host key",
			"Give your people a file with both lines before then, for known_hosts and for `tidegate login --host-ca FILE`: a login brings none by itself. Restart the gateway after that time."},
		{"host", "ssh-host.pem", true, "", 0, "the gateway's SSH host key", "Restart the gateway; whoever trusts the host CA notices nothing."},
		{"login-ca", "ssh-login-ca.pem", true, "", 0, "signs the certificates of `tidegate login`", "Restart the gateway; people log in again."},
		{"recording-ca", recordingCAFile, false, publicKeys, 0, "vouches for recorders", "Nothing is restarted. Give auditors the new public keys; the old ones still verify old recordings."},
		{"recorder", recorderFile, false, "", 0, "signs recordings", "Nothing is restarted: the next session is signed with it, and old recordings verify as before."},
	}
}

// runKeys lists, rotates and prints the keys of an installation's state folder.
func runKeys(_ context.Context, args []string, io stdio) error {
	var w which
	flags := flag.NewFlagSet("keys", flag.ContinueOnError)
	w.addFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	lead := flags.Duration("lead", usualLead, "rotate user-ca or host-ca: how `long` until the new one signs")
	words, err := mixed(flags, args, io)
	if err != nil {
		return err
	}
	i, err := w.find()
	if err != nil {
		return err
	}
	k := keyVerb{installation: i, now: time.Now(), json: *asJSON, lead: *lead, io: io}
	flags.Visit(func(f *flag.Flag) { k.leadGiven = k.leadGiven || f.Name == "lead" })
	switch {
	case len(words) == 0 || words[0] == "list" && len(words) == 1:
		return k.list()
	case words[0] == "print" && len(words) <= 2:
		return k.print(words[1:])
	case words[0] == "rotate" && len(words) == 2:
		return k.rotate(words[1])
	}
	return fmt.Errorf("%w: got %q, want list, print [NAME] or rotate NAME", errUsage, words)
}

type keyVerb struct {
	installation
	now  time.Time
	json bool
	lead time.Duration
	io   stdio

	leadGiven bool
}

// keyRow is one key in the list.
type keyRow struct {
	Name  string    `json:"name"`
	State string    `json:"state"` // signs, next, old
	From  time.Time `json:"from,omitzero"`
	ID    string    `json:"id"`
	About string    `json:"about"`
}

func (v keyVerb) list() error {
	var rows []keyRow
	for _, k := range keyKinds() {
		set, err := readKeySet(v.key(k.file), v.now)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of another part, or not made yet
		}
		if err != nil {
			return err
		}
		add := func(state string, key ed25519.PrivateKey, from time.Time) {
			rows = append(rows, keyRow{k.name, state, from, record.KeyID(key.Public().(ed25519.PublicKey)), k.about})
		}
		add("signs", set.Signs, time.Time{})
		if set.Next != nil {
			add("next", set.Next, set.From)
		}
		for _, old := range set.Old {
			add("old", old, time.Time{})
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("list keys: there are none in %s; --dir names the folder of a `tidegate dev`, --config the configuration of a `tidegate serve`", v.key(""))
	}
	if v.json {
		return encodeAll(v.io.out, rows)
	}
	t := table(v.io.out, "KEY", "STATE", "FROM", "ID", "WHAT FOR")
	for _, r := range rows {
		row(t, r.Name, r.State, stamp(r.From), r.ID, r.About)
	}
	return t.Flush()
}

// print prints public halves: for a template, one kind's; as JSON all, each a
// list, since a rotation has two.
func (v keyVerb) print(names []string) error {
	all := map[string][]string{}
	for _, k := range keyKinds() {
		if len(names) == 1 && names[0] != k.name {
			continue
		}
		set, err := readKeySet(v.key(k.file), v.now)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if all[k.name], err = k.publicHalves(set); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("print keys: there is none of %q here; `tidegate keys` lists them", names)
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

func (k keyKind) publicHalves(set keySet) (out []string, err error) {
	if k.ssh {
		lines, err := set.authorizedKeys()
		return strings.Split(strings.TrimSpace(string(lines)), "\n"), err
	}
	for _, key := range set.trusted() {
		out = append(out, strings.TrimSpace(string(record.MarshalKey(key.Public().(ed25519.PublicKey)))))
	}
	return out, nil
}

func (v keyVerb) rotate(name string) error {
	kinds := keyKinds()
	i := slices.IndexFunc(kinds, func(k keyKind) bool { return k.name == name })
	if i < 0 {
		return fmt.Errorf("rotate key: there is no %q to rotate; `tidegate keys` lists them. TLS certificates of the configuration are files of yours: put new ones in their place", name)
	}
	k, lead := kinds[i], time.Duration(0)
	if k.lead > 0 {
		lead = v.lead
	} else if v.leadGiven {
		return fmt.Errorf("%w: --lead is of user-ca and host-ca; a new %s is at work at once", errUsage, k.name)
	}
	if lead < 0 || lead > 90*24*time.Hour {
		return fmt.Errorf("%w: got --lead %s, want 0 to 2160h", errUsage, lead)
	}
	if err := ownFolder(v.key("")); err != nil {
		return fmt.Errorf("rotate key: %w", err)
	}
	set, err := rotateKey(v.key(k.file), lead, v.now)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate key: %s is not in %s; the part that has it makes it on its first start", k.file, v.key(""))
	}
	if err != nil {
		return err
	}
	if err := k.publish(v.installation, set); err != nil {
		return err
	}
	return v.rotated(k, set)
}

// rotated says what is new.
func (v keyVerb) rotated(k keyKind, set keySet) error {
	key, state, after := set.Signs, "signs", k.now()
	if set.Next != nil {
		key, state, after = set.Next, "next", k.after
	}
	if v.json {
		return encodeOne(v.io.out, keyRow{k.name, state, set.From, record.KeyID(key.Public().(ed25519.PublicKey)), k.about})
	}
	if set.Next != nil {
		fmt.Fprintf(v.io.out, "the next %s signs from %s; until then the old one does\n", k.name, stamp(set.From))
	} else {
		fmt.Fprintf(v.io.out, "%s is new\n", k.name)
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

// publish brings the file with the public halves up to date.
func (k keyKind) publish(i installation, set keySet) error {
	switch {
	case k.public == "":
		return nil
	case !k.ssh:
		return addPublicKey(i.key(""), set.Signs.Public().(ed25519.PublicKey))
	}
	lines, err := set.authorizedKeys()
	if err != nil {
		return err
	}
	return writeNew(i.key(k.public), lines)
}
