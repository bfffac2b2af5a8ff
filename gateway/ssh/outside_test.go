package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sftpServer is where Debian has the program that OpenSSH's sshd starts.
const sftpServer = "/usr/lib/openssh/sftp-server"

// transcript is what an sftp server was asked, as a copy that lies at a path.
type transcript struct{ path string }

// newTranscript answers with the subsystem that keeps the copy: the real server
// behind a tee.
func newTranscript(t *testing.T) (transcript, string) {
	t.Helper()
	if _, err := os.Stat(sftpServer); err != nil {
		t.Fatalf("%v; install openssh-sftp-server", err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "server")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntee "+dir+"/asked | "+sftpServer+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return transcript{dir + "/asked"}, script
}

// kinds are the packets that came before each mark, by the mark.
func (a transcript) kinds(mark string) map[string][]byte {
	text, _ := os.ReadFile(a.path) // not there yet: nothing was asked
	out, since := map[string][]byte{}, []byte{}
	for in := bytes.NewReader(text); ; {
		p, err := readPacket(in, new([]byte))
		if err != nil {
			return out
		}
		f := fields{rest: p.body}
		f.uint32() // the id
		if name, ok := strings.CutPrefix(f.text(), mark); ok && p.kind == fxLstat {
			out[name], since = since, nil
			continue
		}
		since = append(since, p.kind)
	}
}

// twins are a path outside of the folders where something is, and one where
// nothing is. Both are of one length.
type twins struct {
	there, missing string
	followed       bool // a link in the folders leads there: what does not follow it stays in them
}

func (f folders) twins(t *testing.T) []twins {
	t.Helper()
	links := map[string]string{"to-there": f.secret + "/deep/file", "to-gone1": f.secret + "/diip/file", "to-gone2": f.secret + "/gone-file"}
	err := errors.Join(os.Mkdir(f.secret+"/deep", 0o700), os.WriteFile(f.secret+"/deep/file", nil, 0o600), os.Symlink(f.read, f.secret+"/back"))
	for link, to := range links {
		err = errors.Join(err, os.Symlink(to, f.read+"/"+link), os.Symlink(to, f.write+"/"+link))
	}
	if err != nil {
		t.Fatal(err)
	}
	return []twins{
		{f.secret + "/key", f.secret + "/kez", false},
		{f.secret + "/key/", f.secret + "/kez/", false},
		{f.secret + "/key/x", f.secret + "/kez/x", false},
		{f.secret + "/deep/file", f.secret + "/diip/file", false},
		{f.secret + "/back/hello", f.secret + "/beck/hello", false},
		{f.read + "/../secret/deep/file", f.read + "/../secret/diip/file", false},
		{f.read + "/hello/../../secret/deep/file", f.read + "/hello/../../secret/diip/file", false},
		{"../secret/key", "../secret/kez", false},
		{"/etc/passwd", "/etc/passwx", false},
		{path.Join("/proc/self", "root", "etc/passwd"), path.Join("/proc/salf", "root", "etc/passwd"), false}, // the kernel's link to /
		{f.read + "/out/key", f.read + "/out/kez", false},
		{f.read + "/out/deep/file", f.read + "/out/diip/file", false},
		{f.write + "/dir/deep/file", f.write + "/dir/diip/file", false},
		{f.read + "/out/deep/../../read/hello", f.read + "/out/diip/../../read/hello", false},
		{f.read + "/to-there", f.read + "/to-gone1", true},
		{f.read + "/to-there", f.read + "/to-gone2", true},
		{f.write + "/to-there", f.write + "/to-gone1", true},
	}
}

// requests are all that a client can ask with a path; follows says whether the
// host follows a link at the path's end.
func requests(r *rawSFTP, inside string) map[string]struct {
	ask     func(path string) message
	follows bool
} {
	type one = struct {
		ask     func(path string) message
		follows bool
	}
	plain := func(kind byte, rest ...byte) func(string) message {
		return func(path string) message { return r.message(kind).text(path).raw(rest) }
	}
	extended := func(name string, rest ...byte) func(string) message {
		return func(path string) message { return r.message(fxExtended).text(name).text(path).raw(rest) }
	}
	mode := message{}.uint32(attrMode).uint32(0o600)
	return map[string]one{
		"open to read":  {plain(fxOpen, message{}.uint32(openRead).uint32(0)...), true},
		"open to write": {plain(fxOpen, message{}.uint32(openChange).uint32(0)...), true},
		"open to make":  {plain(fxOpen, message{}.uint32(openChange|0x08|0x20).uint32(0)...), true},
		"list":          {plain(fxOpendir), true},
		"stat":          {plain(fxStat), true},
		"lstat":         {plain(fxLstat), false},
		"setstat":       {plain(fxSetstat, mode...), true},
		"remove":        {plain(fxRemove), false},
		"mkdir":         {plain(fxMkdir, 0, 0, 0, 0), false},
		"rmdir":         {plain(fxRmdir), false},
		"readlink":      {plain(fxReadlink), false},
		"realpath":      {plain(fxRealpath), true},
		"statvfs":       {extended("statvfs@openssh.com"), true},
		"lsetstat":      {extended("lsetstat@openssh.com", mode...), false},
		"rename it":     {func(p string) message { return r.message(fxRename).text(p).text(inside) }, false},
		"rename to it":  {func(p string) message { return r.message(fxRename).text(inside).text(p) }, false},
		"posix-rename it": {func(p string) message {
			return r.message(fxExtended).text("posix-rename@openssh.com").text(p).text(inside)
		}, false},
		"posix-rename to it": {func(p string) message {
			return r.message(fxExtended).text("posix-rename@openssh.com").text(inside).text(p)
		}, false},
		"symlink to it":       {func(p string) message { return r.message(fxSymlink).text(p).text(inside) }, false},
		"symlink at it":       {func(p string) message { return r.message(fxSymlink).text(inside).text(p) }, false},
		"hardlink":            {func(p string) message { return r.message(fxExtended).text("hardlink@openssh.com").text(p).text(inside) }, false},
		"expand-path":         {extended("expand-path@openssh.com"), true},
		"home-directory":      {extended("home-directory"), true},
		"an unknown question": {extended("exists@example.com"), true},
	}
}

// TestOutsideIsOneAnswer: whether something is at a path outside of the role's
// folders, nobody learns: neither by what is answered nor by what is asked of
// the host meanwhile, which takes its time.
func TestOutsideIsOneAnswer(t *testing.T) {
	f := newFolders(t)
	all := f.twins(t)
	host, server := newTranscript(t)
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, sshd: []string{"Subsystem sftp " + server}, read: []string{f.read}, write: []string{f.write}})
	r := h.rawSFTP(t)
	inside, mark := f.write+"/inside", f.read+"/mark-"
	f.put(t, "write/inside", "mine\n")
	marks := 0
	ask := func(m message) (answer string) {
		p := r.ask(m)
		r.ask(r.message(fxLstat).text(mark + fmt.Sprint(marks)))
		marks++
		return fmt.Sprint(p.kind) + string(p.body[4:])
	}
	r.ask(r.message(fxLstat).text(mark + "begin"))
	var cases []string
	for name, req := range requests(r, inside) {
		for _, w := range all {
			if w.followed && !req.follows {
				continue
			}
			there, missing := ask(req.ask(w.there)), ask(req.ask(w.missing))
			if as := strings.ReplaceAll(missing, f.named(w.missing), f.named(w.there)); as != there || !strings.HasPrefix(there, fmt.Sprint(fxStatus)) {
				t.Errorf("%s %s: something there is answered with %q, nothing with %q", name, w.there, there, missing)
			}
			cases = append(cases, name+" "+w.there)
		}
	}
	eventually(t, "the host has read the last mark", func() bool { _, ok := host.kinds(mark)[fmt.Sprint(marks-1)]; return ok })
	kinds := host.kinds(mark)
	for i, c := range cases {
		if a, b := kinds[fmt.Sprint(2*i)], kinds[fmt.Sprint(2*i+1)]; !bytes.Equal(a, b) {
			t.Errorf("%s: the host is asked %d where something is, %d where nothing is", c, a, b)
		}
	}
	f.unharmed(t)
}

// named is a path as an answer repeats it.
func (f folders) named(name string) string {
	if !path.IsAbs(name) {
		name = f.read + "/" + name
	}
	return path.Clean(name)
}

// TestOutsideToRealClient: what a person sees of both is the same.
func TestOutsideToRealClient(t *testing.T) {
	f := newFolders(t)
	all := f.twins(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}})
	mine := f.put(t, "mine", "mine\n")
	slices.SortFunc(all, func(a, b twins) int { return len(b.missing) - len(a.missing) }) // one name may begin with another
	run := func(name func(twins) string) (lines []string) {
		var commands []string
		for _, w := range all {
			for _, command := range []string{"get %s /dev/null", "put " + mine + " %s", "ls -l %s", "cd %s", "df %s", "chmod 600 %s"} {
				commands = append(commands, "-"+fmt.Sprintf(command, name(w))) // goes on after a mistake
			}
		}
		r := h.sftp(commands...)
		text := r.out + r.err
		for _, w := range all {
			text = strings.ReplaceAll(strings.ReplaceAll(text, w.missing, w.there), f.named(w.missing), f.named(w.there))
		}
		lines = strings.Split(text, "\n")
		slices.Sort(lines) // the program's words and the gateway's come side by side
		return lines
	}
	there, missing := run(func(w twins) string { return w.there }), run(func(w twins) string { return w.missing })
	if diff := cmp.Diff(there, missing); diff != "" || !strings.Contains(strings.Join(there, "\n"), "Your grant does not") {
		t.Errorf("what sftp says where something is (-), and where nothing is (+):\n%s", diff)
	}
	f.unharmed(t)
}

// TestInsideIsTold: below the folders the host's own answers come through, and
// links within them, also in their names, lead on.
func TestInsideIsTold(t *testing.T) {
	f := newFolders(t)
	err := errors.Join(os.Mkdir(f.read+"/sub", 0o700), os.WriteFile(f.read+"/sub/file", nil, 0o600), os.Symlink("sub", f.read+"/alias"),
		os.Symlink(f.read, f.root+"/current"), os.Symlink("gone/x", f.read+"/dangling"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, houseOptions{read: []string{f.root + "/current"}, write: []string{f.write}})
	r := h.rawSFTP(t)
	for name, want := range map[string]uint32{
		f.root + "/current/sub/file": fxOK, f.read + "/sub/file": fxOK, f.read + "/alias/file": fxOK, "sub/file": fxOK, "sub/../alias/file": fxOK,
		f.root + "/current/gone": 2, f.root + "/current/gone/x": 2, f.read + "/gone/x/y": 2, "gone/x": 2, f.read + "/alias/gone/x": 2, "sub/../gone/x": 2,
		f.read + "/hello/x": 2, f.read + "/dangling": fxDenied, f.root: fxOK, "/": fxOK, f.root + "/mine": fxDenied,
	} {
		p := r.ask(r.message(fxStat).text(name))
		code := uint32(fxOK)
		if p.kind != fxAttrs {
			code = statusCode(p)
		}
		if code != want && (want != 2 || code != fxFailure) { // "not a folder" has no number of its own
			t.Errorf("%s: packet %d, code %d, want %d", name, p.kind, code, want)
		}
	}
}

// TestWhereItLeads: a link that leads out is recorded with what it leads to;
// who asked is not told.
func TestWhereItLeads(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}})
	r := h.sftp("get " + f.read + "/key /dev/null")
	if strings.Contains(r.out+r.err, f.secret) || !strings.Contains(r.err, "Your grant does not stat "+f.read+"/key.") {
		t.Errorf("got %+v", r)
	}
	context := h.context("stat " + f.read + "/key") // the last one, which follows the link
	if !slices.Contains(context, "it leads to "+f.secret+"/key") {
		t.Errorf("recorded with %q, want where it leads", context)
	}
}

// TestAppendedLengthIsBounded: the host minds no offset of what is appended.
func TestAppendedLengthIsBounded(t *testing.T) {
	f := newFolders(t)
	file := f.put(t, "write/file", strings.Repeat("x", 60<<10))
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}, role: map[string]string{"max_file": "64KiB"}})
	r := h.rawSFTP(t)
	handles := []string{r.open(file, openChange|openAppend), r.open(file, openChange|openAppend)}
	var codes []uint32
	for i := range 8 {
		codes = append(codes, statusCode(r.ask(r.message(fxWrite).text(handles[i%2]).uint32(0).uint32(0).text(strings.Repeat("y", 1<<10)))))
	}
	if want := []uint32{0, 0, 0, 0, fxDenied, fxDenied, fxDenied, fxDenied}; !slices.Equal(codes, want) {
		t.Errorf("got codes %d, want %d", codes, want)
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 64<<10 {
		t.Errorf("the file is %v, %v", info, err)
	}
	p := r.ask(r.message(fxOpen).text(f.write + "/new").uint32(openChange | 0x08).uint32(attrSize).uint32(1).uint32(0))
	if code := statusCode(p); p.kind != fxStatus || code != fxDenied {
		t.Errorf("an open that sets a length: packet %d, code %d", p.kind, code)
	}
}

// TestModeAtCreationIsShown: bits that a setstat would show are shown as well
// where they come with a new file or folder; what each client sends is not.
func TestModeAtCreationIsShown(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{write: []string{f.write}})
	r := h.rawSFTP(t)
	open := func(name string, mode uint32) message {
		return r.message(fxOpen).text(f.write + name).uint32(openChange | 0x08).uint32(attrMode).uint32(mode)
	}
	mkdir := func(name string, mode uint32) message {
		return r.message(fxMkdir).text(f.write + name).uint32(attrMode).uint32(mode)
	}
	for _, c := range []struct {
		text  string
		ask   message
		shown string
	}{
		{"write " + f.write + "/setuid", open("/setuid", modeFile|0o4755), "mode 4755"},
		{"write " + f.write + "/plain", open("/plain", modeFile|0o644), ""},
		{"mkdir " + f.write + "/sticky", mkdir("/sticky", 0o1777), "mode 1777"},
		{"mkdir " + f.write + "/folder", mkdir("/folder", 0o777), ""},
	} {
		r.ask(c.ask)
		if got := strings.Join(h.context(c.text), ", "); c.shown == "" && strings.Contains(got, "mode") || !strings.Contains(got, c.shown) {
			t.Errorf("%s: shown with %q, want %q", c.text, got, c.shown)
		}
	}
	for name, m := range map[string]message{"open": r.message(fxOpen).text(f.write + "/odd").uint32(openChange | 0x08), "mkdir": r.message(fxMkdir).text(f.write + "/odd")} {
		if p := r.ask(m.uint32(1 << 31).uint32(0)); p.kind != fxStatus || statusCode(p) != fxDenied {
			t.Errorf("%s with attributes that are not known: packet %d, code %d", name, p.kind, statusCode(p))
		}
	}
}

// TestDotsInANameCostNothing: only a path that leads upwards is traced.
func TestDotsInANameCostNothing(t *testing.T) {
	f := newFolders(t)
	if err := os.Mkdir(f.read+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	host, server := newTranscript(t)
	h := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}, sshd: []string{"Subsystem sftp " + server}, read: []string{f.read}})
	r := h.rawSFTP(t)
	for _, name := range []string{"/mark-begin", "/sub/notes.txt", "/mark-one", "/sub/notes..txt", "/mark-two"} {
		r.ask(r.message(fxLstat).text(f.read + name))
	}
	mark := f.read + "/mark-"
	eventually(t, "the host has read the last mark", func() bool { _, ok := host.kinds(mark)["two"]; return ok })
	if kinds := host.kinds(mark); !bytes.Equal(kinds["one"], kinds["two"]) {
		t.Errorf("the host is asked %d for notes.txt, %d for notes..txt", kinds["one"], kinds["two"])
	}
}
