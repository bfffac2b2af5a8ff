package ssh

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway/gatewaytest"
)

// folders are a role's two folders at the host, and one beside them.
type folders struct{ root, read, write, secret string }

func newFolders(t *testing.T) folders {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := folders{root, filepath.Join(root, "read"), filepath.Join(root, "write"), filepath.Join(root, "secret")}
	for _, dir := range []string{f.read, f.write, f.secret} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.put(t, "read/hello", "hello\n")
	f.put(t, "secret/key", "the secret\n")
	for link, to := range map[string]string{"read/out": f.secret, "read/key": filepath.Join(f.secret, "key"), "write/new": filepath.Join(f.secret, "new"), "write/dir": f.secret} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f folders) put(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(f.root, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sftp runs a batch of commands as alice.
func (h *house) sftp(commands ...string) result {
	h.t.Helper()
	cmd := h.client("alice", "sftp", "-b", "-", "web-1@127.0.0.1")
	cmd.Args[len(cmd.Args)-2] = h.write("batch", strings.Join(commands, "\n")+"\n")
	// Batch mode switches passwords off, unless it is told otherwise behind it.
	cmd.Args = append(cmd.Args[:1], append([]string{"-o", "BatchMode=no"}, cmd.Args[1:]...)...)
	return h.run(cmd)
}

func TestSFTP(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}})
	local := t.TempDir()
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	f.put(t, "read/big", string(big))
	r := h.sftp(
		"get "+f.read+"/big "+local+"/big",
		"put "+local+"/big "+f.write+"/copy",
		"mkdir "+f.write+"/sub", "rename "+f.write+"/copy "+f.write+"/sub/moved", "chmod 600 "+f.write+"/sub/moved",
		"ls "+f.read, "pwd",
	)
	if r.code != 0 || !strings.Contains(r.out, "hello") || !strings.Contains(r.out, "Remote working directory: "+f.read) {
		t.Fatalf("got %+v", r)
	}
	for _, path := range []string{local + "/big", f.write + "/sub/moved"} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%s: %d bytes, %v; want the %d that were sent", path, len(got), err, len(big))
		}
	}
	eventually(t, "the session is sealed", func() bool { return len(h.gate.Tape.Unsealed()) == 0 })
	sum := sha256.Sum256(big)
	read, wrote := h.outcome("read "+f.read+"/big"), h.outcome("write "+f.write+"/copy")
	if want := hex.EncodeToString(sum[:]); read.Hash != want || read.Bytes != int64(len(big)) || wrote.ReceivedHash != want || wrote.Received != int64(len(big)) {
		t.Errorf("recorded read %+v and write %+v, want hash %s", read, wrote, want)
	}
	if strings.Contains(h.recorded(access.ToClient)+h.recorded(access.ToTarget), string(big[:64])) {
		t.Error("the recording holds the file's bytes")
	}
}

// outcome is how the operation of that text ended.
func (h *house) outcome(text string) access.Outcome {
	var op uint64
	for _, e := range h.gate.Tape.Events("") {
		if e.Operation != nil && e.Operation.Text == text {
			op = e.Op
		}
		if e.Type == access.EventClose && e.Op == op && op != 0 {
			return *e.Outcome
		}
	}
	return access.Outcome{}
}

func TestNoWayOutOfTheFolders(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}})
	local := t.TempDir()
	mine := f.put(t, "mine", "overwritten\n")
	for _, command := range []string{
		"get " + f.secret + "/key " + local + "/1",
		"get " + f.read + "/key " + local + "/2",
		"get " + f.read + "/out/key " + local + "/3",
		"get " + f.read + "/../secret/key " + local + "/4",
		"get " + f.read + "/hello/../../secret/key " + local + "/5",
		"get " + f.write + "/dir/key " + local + "/6",
		"ls " + f.secret, "cd " + f.read + "/out", "ls " + f.root, "ls /", "ls " + f.write,
		"put " + mine + " " + f.read + "/hello",
		"put " + mine + " " + f.write + "/new",
		"put " + mine + " " + f.write + "/dir/new",
		"put " + mine + " " + f.secret + "/key",
		"rm " + f.secret + "/key", "rm " + f.read + "/hello", "rm " + f.write + "/dir/key",
		"rename " + f.read + "/hello " + f.write + "/hello", "rename " + f.write + "/dir/key " + f.write + "/key",
		"mkdir " + f.secret + "/sub", "rmdir " + f.secret, "chmod 777 " + f.write + "/dir", "chmod 644 " + f.read + "/hello",
		"symlink " + f.secret + " " + f.write + "/link", "ln " + f.secret + "/key " + f.write + "/hard",
		"get " + f.write + "/../write/../secret/key " + local + "/7",
	} {
		if r := h.sftp(command); r.code == 0 {
			t.Errorf("%s: it worked: %+v", command, r)
		}
	}
	if left, _ := os.ReadDir(local); len(left) > 0 {
		if text, _ := os.ReadFile(filepath.Join(local, left[0].Name())); len(text) > 0 {
			t.Errorf("%s came out: %q", left[0].Name(), text)
		}
	}
	if text, err := os.ReadFile(f.secret + "/key"); string(text) != "the secret\n" {
		t.Errorf("the secret is %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(f.secret); len(entries) != 1 {
		t.Errorf("the secret folder has %v", entries)
	}
	if info, err := os.Stat(f.secret); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the secret folder is %v, %v", info.Mode(), err)
	}
}

func TestSFTPWriteIsHeld(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{write: []string{f.write}, gate: gatewaytest.Options{
		Judge: func(op access.Operation) access.Decision {
			if op.Kind == kindFile && op.Facts["writes"] == true {
				return access.Decision{Verdict: access.Hold, Rule: "two", Say: "Two people.", Ask: []access.Party{gatewaytest.Team("ops", "bob")}}
			}
			return access.Decision{Verdict: access.Allow}
		},
		OnHeld: func(held access.Held) *gatewaytest.Reply {
			return &gatewaytest.Reply{By: gatewaytest.User("bob"), Approve: strings.HasSuffix(held.Operation.Text, "/yes")}
		},
	}})
	mine := f.put(t, "mine", "content\n")
	if r := h.sftp("put " + mine + " " + f.write + "/yes"); r.code != 0 {
		t.Errorf("approved: %+v", r)
	}
	if r := h.sftp("put " + mine + " " + f.write + "/no"); r.code == 0 || !strings.Contains(r.err, "bob said no") {
		t.Errorf("denied: %+v", r)
	}
	if _, err := os.Stat(f.write + "/no"); !os.IsNotExist(err) {
		t.Errorf("the denied file is there: %v", err)
	}
}

func TestFileSize(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}, role: map[string]string{"max_file": "64KiB"}})
	big := f.put(t, "read/big", strings.Repeat("x", 1<<20))
	if r := h.sftp("put " + big + " " + f.write + "/big"); r.code == 0 || !strings.Contains(r.err, "at most 65536 bytes") {
		t.Errorf("put: %+v", r)
	}
	if r := h.sftp("get " + big + " " + t.TempDir() + "/big"); r.code == 0 {
		t.Errorf("get: %+v", r)
	}
	if info, err := os.Stat(f.write + "/big"); err != nil || info.Size() > 64<<10 {
		t.Errorf("the host has %v, %v", info, err)
	}
}

// TestTransferPrograms: scp in both its protocols, rsync and git over exec,
// each a right of its own.
func TestTransferPrograms(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}, role: map[string]string{"transfers": "scp\nrsync\ngit"}})
	bare := newHouse(t, houseOptions{role: map[string]string{"exec": "true"}})
	local := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", f.write+"/repo.git").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		name    string
		program string
		args    []string
		refused string // without the right, by exec alone
	}{
		{"scp", "scp", []string{"web-1@127.0.0.1:" + f.read + "/hello", local + "/scp"}, "moves no files"},
		{"scp -O", "scp", []string{"-O", "web-1@127.0.0.1:" + f.read + "/hello", local + "/legacy"}, "does not give scp"},
		{"scp -O up", "scp", []string{"-O", f.read + "/hello", "web-1@127.0.0.1:" + f.write + "/up"}, "does not give scp"},
		{"rsync", "rsync", []string{"-a", "web-1@127.0.0.1:" + f.read + "/hello", local + "/rsync"}, "does not give rsync"},
		{"git", "git", []string{"clone", "-q", "web-1@127.0.0.1:" + f.write + "/repo.git", local + "/git"}, "does not give git"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := h.transfer(c.program, c.args...); r.code != 0 {
				t.Errorf("got %+v", r)
			}
			c.args[len(c.args)-1] += ".refused"
			if r := bare.transfer(c.program, c.args...); r.code == 0 || !strings.Contains(r.err, c.refused) {
				t.Errorf("without the right: got %+v", r)
			}
		})
	}
	for _, name := range []string{"scp", "legacy", "rsync"} {
		if text, err := os.ReadFile(filepath.Join(local, name)); string(text) != "hello\n" {
			t.Errorf("%s brought %q, %v", name, text, err)
		}
	}
}

// TestRsyncHidesNoArguments: with -s the far half of rsync reads arguments where
// its files come from. Mallory, who has rsync alone, has a daemon among them,
// whose configuration names a program.
func TestRsyncHidesNoArguments(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{role: map[string]string{"transfers": "rsync"}})
	config := f.put(t, "write/conf", "[m]\npath = "+f.write+"\nuse chroot = no\npre-xfer exec = /bin/touch "+f.root+"/ran\n")
	hidden := strings.Join([]string{"rsync", "--daemon", "--config=" + config, ".", "", "@RSYNCD: 31.0 md5 md4\nm\n--server"}, "\x00")
	r := h.run(input(h.client("alice", "ssh", "web-1@127.0.0.1", "rsync --server -s ."), hidden))
	if _, err := os.Stat(f.root + "/ran"); err == nil || r.code != 1 || !strings.Contains(r.err, "--secluded-args") {
		t.Errorf("got %+v; the program: %v", r, err)
	}
	if r := h.transfer("rsync", "-as", "web-1@127.0.0.1:"+f.read+"/hello", f.root+"/copy"); r.code == 0 || !strings.Contains(r.err, "--secluded-args") {
		t.Errorf("got %+v", r)
	}
}

// transfer runs a program that starts ssh by itself.
func (h *house) transfer(program string, args ...string) result {
	h.t.Helper()
	cmd := h.client("alice", program, args...)
	if program == "scp" {
		return h.run(cmd)
	}
	line := "ssh " + strings.Join(h.options(), " ")
	if program == "rsync" {
		args = append([]string{"-e", line}, args...)
	}
	cmd.Args = append([]string{program}, args...)
	cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND="+line)
	return h.run(cmd)
}

// rawSFTP speaks sftp as no honest client does.
type rawSFTP struct {
	t   *testing.T
	in  io.Writer
	out io.Reader
	id  uint32
}

func (h *house) rawSFTP(t *testing.T) *rawSFTP {
	t.Helper()
	client, err := gossh.Dial("tcp", h.address, &gossh.ClientConfig{
		User: "web-1", Auth: []gossh.AuthMethod{gossh.Password(h.gate.Token("alice"))}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	r := &rawSFTP{t: t}
	r.in, err = session.StdinPipe()
	if err == nil {
		r.out, err = session.StdoutPipe()
	}
	if err == nil {
		err = session.RequestSubsystem("sftp")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.ask(newMessage(fxInit, fileVersion))
	return r
}

// ask sends one packet and waits for its answer.
func (r *rawSFTP) ask(m message) packet {
	r.t.Helper()
	p, err := r.answer(m)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rawSFTP) answer(m message) (packet, error) {
	if _, err := r.in.Write(m.sealed()); err != nil {
		return packet{}, err
	}
	return readPacket(r.out, new([]byte))
}

func (r *rawSFTP) message(kind byte) message { r.id++; return newMessage(kind, r.id) }

// open answers with the file's handle.
func (r *rawSFTP) open(path string, flags uint32) string {
	r.t.Helper()
	p := r.ask(r.message(fxOpen).text(path).uint32(flags).uint32(0))
	f := fields{rest: p.body}
	f.uint32()
	handle := f.text()
	if p.kind != fxHandle || f.bad {
		r.t.Fatalf("open %s: packet %d, %q", path, p.kind, p.body)
	}
	return handle
}

// TestHandleGivesWhatWasJudged: a file that was opened for one thing serves no
// other. The host's server would read, and change modes, by any handle.
func TestHandleGivesWhatWasJudged(t *testing.T) {
	f := newFolders(t)
	h := newHouse(t, houseOptions{read: []string{f.read}, write: []string{f.write}})
	f.put(t, "write/drop", "another's report\n")
	r := h.rawSFTP(t)
	reads, writes := r.open(f.read+"/hello", openRead), r.open(f.write+"/drop", 0x08) // create alone: the host opens for reading
	for name, m := range map[string]message{
		"mode by a reader":  r.message(fxFsetstat).text(reads).uint32(4).uint32(0o777),
		"times by a reader": r.message(fxFsetstat).text(reads).uint32(8).uint32(1).uint32(1),
		"write by a reader": r.message(fxWrite).text(reads).uint32(0).uint32(0).text("x"),
		"read by a writer":  r.message(fxRead).text(writes).uint32(0).uint32(0).uint32(100),
	} {
		p := r.ask(m)
		answer := fields{rest: p.body}
		answer.uint32()
		if code := answer.uint32(); p.kind != fxStatus || code != fxDenied {
			t.Errorf("%s: packet %d, code %d, %q; want it denied", name, p.kind, code, p.body)
		}
	}
	if info, err := os.Stat(f.read + "/hello"); err != nil || info.Mode().Perm() != 0o600 || info.ModTime().Unix() == 1 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}
