package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// What is copied here is larger than one part of an upload: 5 MiB in S3, 8 in
// Azure, 16 in Google's.
const large = 20 << 20

// stores are real servers, each with a bucket "recordings", behind a relay.
func stores() map[string]func(*testing.T) *store {
	return map[string]func(*testing.T) *store{
		"folder": func(t *testing.T) *store { return &store{url: "file://" + filepath.ToSlash(t.TempDir())} },
		"s3":     newS3, "azure": newAzure, "google": newGoogle,
	}
}

// each runs a test with every store, all at once.
func each(t *testing.T, do func(t *testing.T, s *store)) {
	for name, start := range stores() {
		t.Run(name, func(t *testing.T) { do(t, start(t)) })
	}
}

func (s *store) open(t *testing.T, dir string) *Archive {
	t.Helper()
	a, err := Open(t.Context(), Config{Dir: dir, URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// sealed puts a file where a sealed recording lies.
func sealed(t *testing.T, dir, session string, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	_, _ = rand.Read(content)
	path = filepath.Join(dir, "2026", "11", "28", session+ext)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func (s *store) wantCopy(t *testing.T, a *Archive, session string, want []byte) {
	t.Helper()
	f, err := a.Fetch(t.Context(), session)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy of %s has %d bytes, %v; want the %d of the recording", session, len(got), err, len(want))
	}
}

// TestStores: small and large copies are made once, come back, and what
// somebody else wrote before is not touched.
func TestStores(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		dir := t.TempDir()
		_, little := sealed(t, dir, "little", 1000)
		_, much := sealed(t, dir, "much", large)
		a := s.open(t, dir)
		if n, err := a.Sweep(t.Context()); n != 2 || err != nil {
			t.Fatalf("%d were copied, %v", n, err)
		}
		s.wantCopy(t, a, "little", little)
		s.wantCopy(t, a, "much", much)
		if _, err := a.Fetch(t.Context(), "none"); err == nil || !strings.Contains(err.Error(), "nor in the bucket") {
			t.Errorf("fetch what is not there: %v", err)
		}
		other := make([]byte, large)
		for _, key := range []string{"little.tgr", "much.tgr"} {
			if err := a.bucket.create(t.Context(), key, bytes.NewReader(other)); !errors.Is(err, errThere) {
				t.Errorf("written over %s: %v", key, err)
			}
		}
		s.wantCopy(t, a, "much", much)
		changed, _ := sealed(t, dir, "little", 1001)
		if err := os.Remove(changed + sentSuffix); err != nil {
			t.Fatal(err)
		}
		if n, err := a.Sweep(t.Context()); n != 0 || !errors.Is(err, errDiffers) || isThere(changed+sentSuffix) {
			t.Errorf("another content under its name: %d were copied, %v", n, err)
		}
		s.wantCopy(t, a, "little", little)
	})
}

// TestStoreKilled: the server dies with half of a recording. Nothing is noted,
// no half is shown, and once it is there again the copy is made.
func TestStoreKilled(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		if s.relay == nil {
			t.Skip("a folder has no server; TestGatewayKilled")
		}
		dir := t.TempDir()
		path, content := sealed(t, dir, "s1", large)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		killed := make(chan struct{})
		s.relay.at(large/2, func() {
			s.kill()
			close(killed)
			time.AfterFunc(time.Second, cancel) // the SDKs try again and again
		})
		if n, err := s.open(t, dir).Sweep(ctx); n != 0 || err == nil || isThere(path+sentSuffix) {
			t.Fatalf("with the server killed %d were copied, %v", n, err)
		}
		select {
		case <-killed: // a copy may end as soon as it loses the server
		case <-time.After(time.Minute):
			t.Fatal("the copy ended before its half was sent")
		}
		s.start(t)
		if s.restored != nil {
			if err := s.restored(); err != nil {
				t.Fatal(err)
			}
		}
		a := s.open(t, dir)
		if _, err := a.bucket.open(t.Context(), "s1.tgr"); !errors.Is(err, errNone) {
			t.Errorf("a broken copy is shown: %v", err)
		}
		if n, err := a.Sweep(t.Context()); n != 1 || err != nil {
			t.Fatalf("after its restart %d were copied, %v", n, err)
		}
		s.wantCopy(t, a, "s1", content)
	})
}

// TestGatewayKilled: kill -9 in the midst of a copy, and a new start.
func TestGatewayKilled(t *testing.T) {
	each(t, func(t *testing.T, s *store) {
		dir := t.TempDir()
		path, content := sealed(t, dir, "s1", large)
		child, half, killed := s.child(dir), make(chan struct{}), make(chan struct{})
		if s.relay == nil {
			child.Env = append(child.Env, "ARCHIVE_SLOW=1")
			close(half)
		} else {
			s.relay.at(large/2, func() { close(half); <-killed })
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		<-half
		part := filepath.Join(strings.TrimPrefix(s.url, "file://"), "s1.tgr.part")
		for end := time.Now().Add(30 * time.Second); s.relay == nil && !isThere(part) && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // nothing tells of a file
		}
		_ = child.Process.Kill()
		close(killed)
		if err := child.Wait(); err == nil {
			t.Fatal("the copy was made before the kill")
		}
		a := s.open(t, dir)
		if _, err := a.bucket.open(t.Context(), "s1.tgr"); !errors.Is(err, errNone) || isThere(path+sentSuffix) {
			t.Errorf("a broken copy is shown, or noted: %v", err)
		}
		if n, err := a.Sweep(t.Context()); n != 1 || err != nil {
			t.Fatalf("after the restart %d were copied, %v", n, err)
		}
		s.wantCopy(t, a, "s1", content)
	})
}

// TestWrongCredentials: they are checked, and nothing is noted.
func TestWrongCredentials(t *testing.T) {
	for name, wrong := range map[string]string{
		"s3": "AWS_SECRET_ACCESS_KEY=wrong", "azure": "AZURE_STORAGE_KEY=" + base64.StdEncoding.EncodeToString(make([]byte, 64)),
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := stores()[name](t), t.TempDir()
			path, _ := sealed(t, dir, "s1", 1000)
			child := s.child(dir)
			child.Env = append(child.Env, wrong)
			out, err := child.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "403") || isThere(path+sentSuffix) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestObjectLock: what was copied into a bucket with a lock on its objects
// can't be deleted, by whoever it is.
func TestObjectLock(t *testing.T) {
	s, dir := newS3(t), t.TempDir()
	sealed(t, dir, "s1", 1000)
	name := aws.String("locked")
	if _, err := s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: name, ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.s3.PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{Bucket: name, ObjectLockConfiguration: &types.ObjectLockConfiguration{
		ObjectLockEnabled: types.ObjectLockEnabledEnabled,
		Rule:              &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(1)}},
	}}); err != nil {
		t.Fatal(err)
	}
	s.url = strings.Replace(s.url, "recordings", "locked", 1)
	a := s.open(t, dir)
	if n, err := a.Sweep(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d were copied, %v", n, err)
	}
	head, err := s.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: name, Key: aws.String("s1.tgr")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: name, Key: aws.String("s1.tgr"), VersionId: head.VersionId})
	if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("it was deleted, or not refused for its lock: %v", err)
	}
}

// store is one server.
type store struct {
	url   string
	relay *relay // nil: a folder
	s3    *s3.Client

	program  func() *exec.Cmd
	restored func() error // what is left to do after a restart
	running  *exec.Cmd
	target   string // where it listens
}

// run has a program serve at target, behind a relay.
func run(t *testing.T, s *store) *store {
	t.Helper()
	s.start(t)
	t.Cleanup(s.kill)
	s.relay.serve(t, s.target)
	return s
}

func (s *store) start(t *testing.T) {
	t.Helper()
	var log bytes.Buffer
	s.running = s.program()
	s.running.Stdout, s.running.Stderr = &log, &log
	if err := s.running.Start(); err != nil {
		t.Fatal(err)
	}
	if err := answers(s.target); err != nil {
		s.kill()
		t.Fatalf("%s: %v\n%s", s.running.Path, err, log.String())
	}
}

func (s *store) kill() {
	_ = s.running.Process.Kill()
	_ = s.running.Wait()
}

// child is this program again, to copy once: see TestMain.
func (s *store) child(dir string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "ARCHIVE_CHILD="+dir, "ARCHIVE_URL="+s.url)
	return c
}

func TestMain(m *testing.M) {
	dir := os.Getenv("ARCHIVE_CHILD")
	if dir == "" {
		os.Exit(m.Run())
	}
	a, err := Open(context.Background(), Config{Dir: dir, URL: os.Getenv("ARCHIVE_URL")})
	if err == nil {
		if os.Getenv("ARCHIVE_SLOW") != "" {
			a.bucket = slowly{a.bucket}
		}
		_, err = a.Sweep(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// slowly never comes to an end.
type slowly struct{ bucket }

func (s slowly) create(ctx context.Context, key string, r io.Reader) error {
	stuck, _ := io.Pipe()
	return s.bucket.create(ctx, key, io.MultiReader(io.LimitReader(r, large/2), stuck))
}

func newS3(t *testing.T) *store {
	t.Helper()
	dir, versions := t.TempDir(), t.TempDir()
	s := &store{target: free(t), relay: newRelay(t)}
	t.Setenv("AWS_ACCESS_KEY_ID", "tidegate")
	t.Setenv("AWS_SECRET_ACCESS_KEY", rand.Text())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	program := part(t, "versitygw")
	s.program = func() *exec.Cmd {
		c := exec.Command(program, "--quiet", "--region", "us-east-1", "--port", s.target, "posix", "--versioning-dir", versions, dir)
		c.Env = append(os.Environ(), "ROOT_ACCESS_KEY=tidegate", "ROOT_SECRET_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
		return c
	}
	s.url = "s3://recordings?region=us-east-1&s3ForcePathStyle=true&endpoint=http://" + s.relay.addr()
	run(t, s)
	s.s3 = s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + s.target), UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "tidegate", SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")}, nil
		}),
	})
	if _, err := s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("recordings")}); err != nil {
		t.Fatal(err)
	}
	return s
}

// azureKey is one for the whole run: gocloud.dev reads the environment once.
var azureKey = base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text()))

func newAzure(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	s := &store{target: free(t), relay: newRelay(t)}
	t.Setenv("AZURE_STORAGE_ACCOUNT", "tidegate")
	t.Setenv("AZURE_STORAGE_KEY", azureKey)
	program := part(t, "node_modules/.bin/azurite-blob")
	_, port, _ := strings.Cut(s.target, ":")
	s.program = func() *exec.Cmd {
		c := exec.Command("node", program, "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", dir, "--blobHost", "127.0.0.1", "--blobPort", port)
		c.Env = append(os.Environ(), "AZURITE_ACCOUNTS=tidegate:"+azureKey)
		return c
	}
	s.url = "azblob://recordings?protocol=http&domain=" + s.relay.addr()
	run(t, s)
	login, err := azblob.NewSharedKeyCredential("tidegate", azureKey)
	if err != nil {
		t.Fatal(err)
	}
	client, err := azblob.NewClientWithSharedKeyCredential("http://"+s.target+"/tidegate", login, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.restored = func() error { // the emulator keeps its list of containers in memory for 5 s
		_, err := client.CreateContainer(t.Context(), "recordings", nil)
		if bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
			return nil
		}
		return err
	}
	if err := s.restored(); err != nil {
		t.Fatal(err)
	}
	return s
}

func newGoogle(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "recordings"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &store{target: free(t), relay: newRelay(t)}
	asked := serviceAccount(t)
	program := part(t, "fake-gcs-server")
	_, port, _ := strings.Cut(s.target, ":")
	s.program = func() *exec.Cmd {
		return exec.Command(program, "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "filesystem", "-filesystem-root", dir,
			"-external-url", "http://"+s.relay.addr(), "-public-host", s.relay.addr())
	}
	s.url = "gs://recordings?endpoint=http://" + s.relay.addr()
	run(t, s)
	t.Cleanup(func() {
		if asked.Load() == 0 {
			t.Error("no token was asked for: the emulator takes anybody, Google does not")
		}
	})
	return s
}

// serviceAccount is a login as Google's, with a server that gives it tokens.
func serviceAccount(t *testing.T) (asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Count(r.FormValue("assertion"), ".") == 2 { // a signed JWT
			asked.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "t", "token_type": "Bearer", "expires_in": 3600})
	}))
	t.Cleanup(tokens.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "gateway@tidegate.test", "private_key_id": "1", "token_uri": tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	return asked
}
