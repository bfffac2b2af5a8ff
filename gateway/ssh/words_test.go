package ssh

import (
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// TestTransfersStartNothingElse: what a transfer's own client starts at the
// host is one; mallory's ways to have the same programs run something are not.
func TestTransfersStartNothingElse(t *testing.T) {
	for command, want := range map[string]string{
		"scp -t /srv/a":                      "scp",
		"scp -v -r -p -d -f -- /srv/a":       "scp",
		"scp -pt '/srv/a b'":                 "scp", // libssh2's
		"/usr/bin/scp -f a":                  "scp",
		"rsync --server --sender -e.LsfxC .": "rsync",
		"rsync --server -vlogDtpre.iLsfxC .": "rsync",
		"git-upload-pack '/srv/a.git'":       "git",
		"git receive-pack /srv/a.git":        "git",
		"git upload-archive a.git":           "git",

		"scp -S /tmp/evil host:a -t":                     "",
		"scp -S /tmp/evil -t host:a":                     "",
		"scp -o 'ProxyCommand=sh -c id' host:a -t":       "",
		"scp -oProxyCommand=/tmp/evil -t host:a":         "",
		"scp -tS /tmp/evil host:a b":                     "",
		"scp -- host:a -t":                               "",
		"scp host:a -f":                                  "",
		"scp":                                            "",
		"/home/deploy/scp -t a":                          "",
		"./scp -t a":                                     "",
		"rsync -e /tmp/evil host:a b --server":           "",
		"rsync --server --daemon --config=/tmp/evil .":   "",
		"/tmp/rsync --server .":                          "",
		"rsync --server -s .":                            "",
		"rsync --server -vlogDtprse.LsfxCIvu .":          "",
		"rsync --server --secluded-args .":               "",
		"rsync --server --protect-args .":                "",
		"git-upload-pack --help":                         "",
		"git upload-pack --help":                         "",
		"git -c core.pager=/tmp/evil upload-pack /srv/a": "",
		"git-upload-pack":                                "",
		"git upload-pack":                                "",
		"git":                                            "",
	} {
		words, ok := literalWords(command)
		if got := transferOf(words); !ok || got != want {
			t.Errorf("%s is the transfer %q, want %q (literal: %v)", command, got, want, ok)
		}
	}
}

// TestAssignmentsAreNotSimple: what stands before a program and is none, to any
// shell, is not taken for the program.
func TestAssignmentsAreNotSimple(t *testing.T) {
	for _, command := range []string{"A=/ls rm -rf /srv", "A+=/ls rm -rf /srv", "PATH+=:/tmp/ls rm", "a[0]=/ls rm", "a[0]+=/ls rm"} {
		if words, ok := literalWords(command); ok {
			t.Errorf("%q is called simple, as %q", command, words)
		}
	}
	if words, ok := literalWords("dd if=/dev/sda of=x"); !ok || len(words) != 3 {
		t.Errorf("words with = behind the program are plain, got %q, %v", words, ok)
	}
}

// TestLineEndsAreNotSimple: where lines go on, and what a CR is, the parser and
// shells do not agree on.
func TestLineEndsAreNotSimple(t *testing.T) {
	for _, command := range []string{
		"uptime a\\\r\nsh", "tail /var/log/x\\\n/etc/shadow", "tail '/var/log/x'\\\n/etc/shadow", "tail \"/var/log/x\\\n\"",
		"uptime\r\n", "uptime\r", "uptime\n", "'a\\\nb'", "upt\\ime",
	} {
		if words, ok := literalWords(command); ok {
			t.Errorf("%q is called simple, as %q", command, words)
		}
	}
}

// TestSignsOfSomeShells: what one shell alone expands is literal to none.
func TestSignsOfSomeShells(t *testing.T) {
	for _, word := range []string{"=ls", "''=ls", "='ls'", "%self", "''%self", "%'self'", "%Y", "%1", "%", "~", "~root", "a=~", "{a,b}", "a{1..3}", "$'a'", `$"a"`, "<(a)", ">(a)", "^a^b", "!!", "[a]", "a*", "?", "@(a)", "#", "# a", "a #b", "`a`", "<<a", "<<<a", "é"} {
		if words, ok := literalWords("echo " + word); ok {
			t.Errorf("%q is called literal, as %q", word, words)
		}
	}
	for _, command := range []string{"! rm", "if rm", "{ rm; }", "(rm)", "((1))", "[[ a ]]", "f() { rm; }", "function f { rm; }", "case a in a) rm;; esac", "rm &", "rm; rm", "rm && rm", "rm | rm", "# rm", "'%1'", "%1", "'=ls'", "#", "", " ", "coproc { rm; }", "time { rm; }", "time; rm"} {
		if words, ok := literalWords(command); ok {
			t.Errorf("%q is called simple, as %q", command, words)
		}
	}
}

// TestShellsReadTheSameWords: the shells at hand start a simple command with
// just the words that were judged.
func TestShellsReadTheSameWords(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/p", []byte("#!/bin/sh\nfor a in \"$@\"; do printf '<%s>' \"$a\"; done\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	simple := []string{
		"p a%b @ + a=b x:=y : , . .. / - _ -- -e", `p 'x y' "x y" '' "" '*' "~" '~' "{a,b}" '['`, `p "a;b" '&' '|' '<' "(ls)" "<(x)" '#' a'b'c '"' "'"`,
		"p '\u00a0' 'é' '\u2028' '\u202e'", "p @a a@b a''b '^a^b' \"^\"", `p '%s' "%Y" '%'self '=p' "="p`, "\tp \t a\t",
	}
	shells := 0
	for _, shell := range []string{"sh", "bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		shells++
		for _, command := range simple {
			words, ok := literalWords(command)
			if !ok {
				t.Fatalf("%q is not called simple", command)
			}
			cmd := exec.CommandContext(t.Context(), path, "-c", command)
			cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8"}
			out, err := cmd.CombinedOutput()
			if want := "<" + strings.Join(words[1:], "><") + ">"; err != nil || string(out) != want {
				t.Errorf("%s reads %q as %q, %v; judged was %q", shell, command, out, err, want)
			}
		}
	}
	if shells < 2 {
		t.Errorf("%d shells are here, want sh and bash at least", shells)
	}
}

// TestLongCommandsTakeTurns: of all connections' long commands only some are
// parsed at once; short ones do not wait for them.
func TestLongCommandsTakeTurns(t *testing.T) {
	for range cap(longTurns) {
		longTurns <- struct{}{}
	}
	var free atomic.Bool
	done := make(chan bool, 1)
	go func() {
		_, ok := literalWords("echo " + strings.Repeat("a ", longCommand))
		if !free.Load() {
			t.Error("a long command did not wait for its turn")
		}
		done <- ok
	}()
	for range 10_000 { // takes longer than the long one alone
		if _, ok := literalWords("echo a b c d e f g h i j k l m n o p"); !ok {
			t.Fatal("a short command is not understood")
		}
	}
	free.Store(true)
	for range cap(longTurns) {
		<-longTurns
	}
	if !<-done {
		t.Error("the long command was not understood")
	}
}
