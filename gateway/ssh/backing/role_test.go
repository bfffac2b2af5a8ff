package backing

import (
	"strings"
	"testing"

	"github.com/tidegate/tidegate/access"
)

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMeWrGK0JSTRE8XSsAE3MzpAOT5skWIXUjBGeZ0kzv5h"

// TestRoleRefuses says everything that is wrong with a role.
func TestRoleRefuses(t *testing.T) {
	pinned := map[string]string{"host_key": hostKey}
	for _, c := range []struct {
		name        string
		target      map[string]string
		settings    map[string]string
		read, write []string
		want        string
	}{
		{"nothing", pinned, nil, nil, nil, "no account"},
		{"no right", pinned, map[string]string{"accounts": "deploy"}, nil, nil, "it gives nothing"},
		{"an unknown setting", pinned, map[string]string{"accounts": "deploy", "shel": "true"}, nil, nil, `the setting "shel" is unknown`},
		{"no host key", nil, map[string]string{"accounts": "deploy", "shell": "true"}, nil, nil, "neither host_key nor host_ca"},
		{"a wrong host key", map[string]string{"host_key": "ssh-ed25519 AAAA"}, map[string]string{"accounts": "deploy", "shell": "true"}, nil, nil, "host_key: a host key is not understood"},
		{"a flag that is none", pinned, map[string]string{"accounts": "deploy", "shell": "yes"}, nil, nil, `shell is "yes"`},
		{"an account that is none", pinned, map[string]string{"accounts": "a b", "shell": "true"}, nil, nil, `accounts has "a b"`},
		{"commands with a shell", pinned, map[string]string{"accounts": "deploy", "shell": "true", "commands": "id"}, nil, nil, "can't be enforced"},
		{"commands with exec", pinned, map[string]string{"accounts": "deploy", "exec": "true", "commands": "id"}, nil, nil, "exec is any command"},
		{"a command with a list", pinned, map[string]string{"accounts": "deploy", "commands": "id; id"}, nil, nil, `commands has "id; id"`},
		{"a terminal for nothing", pinned, map[string]string{"accounts": "deploy", "terminal": "true", "forward": "db:1"}, nil, nil, "terminal without anything to run"},
		{"a relative folder", pinned, map[string]string{"accounts": "deploy"}, []string{"srv"}, nil, `read has "srv"`},
		{"a folder with dots", pinned, map[string]string{"accounts": "deploy"}, nil, []string{"/srv/../etc"}, `write has "/srv/../etc"`},
		{"sftp as a subsystem", pinned, map[string]string{"accounts": "deploy", "subsystems": "sftp"}, nil, nil, `subsystems has "sftp"`},
		{"an address without a port", pinned, map[string]string{"accounts": "deploy", "forward": "db"}, nil, nil, `forward has "db"`},
		{"a size", pinned, map[string]string{"accounts": "deploy", "shell": "true", "max_file": "1G"}, nil, nil, `max_file is "1G"`},
		{"a transfer", pinned, map[string]string{"accounts": "deploy", "transfers": "ftp"}, nil, nil, `transfers has "ftp"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := access.Target{TargetRef: access.TargetRef{Kind: "ssh", Name: "web-1"}, Settings: c.target}
			_, err := FromRole(target, access.Role{Name: "r", Settings: c.settings, Read: c.read, Write: c.write})
			if access.CodeOf(err) != access.CodeInvalid || !strings.Contains(access.Message(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseRefusesWhatItDoesNotKnow(t *testing.T) {
	good := Backing{Accounts: []string{"deploy"}, HostKeys: []string{hostKey}, Shell: true}
	text, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(text); err != nil {
		t.Errorf("its own: %v", err)
	}
	for _, bad := range []string{
		`{}`, string(text) + "x", strings.Replace(string(text), "{", `{"narrower":true,`, 1), `{"accounts":["a"],"shell":true}`,
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
