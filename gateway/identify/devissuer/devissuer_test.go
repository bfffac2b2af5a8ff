package devissuer

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestKeyIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for n := range ids {
		wg.Go(func() {
			i, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = i.public.KeyID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two processes have the keys %s and %s, want one", ids[0], id)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("the folder holds %v, %v; want the key alone", files, err)
	}
	info, err := files[0].Info()
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v; want 0600", info.Mode(), err)
	}
}

func TestBadKeyFiles(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"open to others": {"", 0o644, "want 0600"},
		"empty":          {"", 0o600, "not a private key"},
		"not a key":      {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "not an Ed25519 key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, keyFile)
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestMintAndServeBounds(t *testing.T) {
	i, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path string) int {
		rec := httptest.NewRecorder()
		i.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
		return rec.Code
	}
	if _, err := i.Mint(Claims{}); err == nil {
		t.Error("minted without a URL")
	}
	if code := get("GET", "/tidegate-dev/keys"); code != http.StatusServiceUnavailable {
		t.Errorf("served without a URL: %d", code)
	}
	i.SetURL("http://127.0.0.1:1/base/")
	if want := "http://127.0.0.1:1/base/tidegate-dev"; i.URL() != want {
		t.Errorf("the URL is %s, want %s", i.URL(), want)
	}
	i.SetURL(i.URL())
	if strings.Count(i.URL(), "tidegate-dev") != 1 {
		t.Errorf("the mark was set twice: %s", i.URL())
	}
	for _, d := range []time.Duration{-1, 25 * time.Hour} {
		if _, err := i.Mint(Claims{Lifetime: d}); err == nil {
			t.Errorf("minted for %s", d)
		}
	}
	for path, want := range map[string]int{
		"/base/tidegate-dev/.well-known/openid-configuration": 200, "/tidegate-dev/keys": 200, "/keys": 404, "/": 404,
	} {
		if code := get("GET", path); code != want {
			t.Errorf("GET %s is %d, want %d", path, code, want)
		}
	}
	if code := get("POST", "/tidegate-dev/keys"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST is %d", code)
	}
}
