package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// oracle validates answers against GitHub's own OpenAPI description.
type oracle struct {
	mu       sync.Mutex // the compiler is not safe for concurrent use
	compiler *jsonschema.Compiler
	paths    []pathTemplate
	doc      map[string]any
}

type pathTemplate struct {
	path   string
	match  *regexp.Regexp
	params int
}

const oracleURL = "file:///github.json"

var (
	loadOracle = sync.OnceValues(newOracle)
	parameter  = regexp.MustCompile(`\{[^}]*\}`)
	manyParts  = regexp.MustCompile(`\{(ref|basehead|branch|tree_sha|commit_sha)\}`)
)

// validating is a transport through which every answer is checked. Without the
// description tests run unvalidated on a laptop and fail where it is demanded.
func validating(t *testing.T) http.RoundTripper {
	t.Helper()
	o, err := loadOracle()
	if errors.Is(err, os.ErrNotExist) && os.Getenv("TIDEGATE_REQUIRE_PARTS") != "1" {
		t.Logf("answers are not validated: %v (run .ci/parts/github-openapi.sh)", err)
		return http.DefaultTransport
	}
	if err != nil {
		t.Fatalf("load GitHub's description: %v (run .ci/parts/github-openapi.sh)", err)
	}
	return checked{t, o}
}

func newOracle() (*oracle, error) {
	path := os.Getenv("TIDEGATE_GITHUB_OPENAPI")
	if path == "" {
		path = filepath.Join("..", "..", "..", ".cache", "parts", "github-openapi", "api.github.com.json")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		return nil, err
	}
	doc := nullable(raw).(map[string]any)
	o := &oracle{doc: doc, compiler: jsonschema.NewCompiler()}
	o.compiler.DefaultDraft(jsonschema.Draft7)
	o.compiler.AssertFormat()
	if err := o.compiler.AddResource(oracleURL, doc); err != nil {
		return nil, err
	}
	for path := range doc["paths"].(map[string]any) {
		o.paths = append(o.paths, newTemplate(path))
	}
	slices.SortFunc(o.paths, func(a, b pathTemplate) int {
		if a.params != b.params {
			return a.params - b.params
		}
		return len(b.path) - len(a.path)
	})
	return o, nil
}

func newTemplate(path string) pathTemplate {
	expr := manyParts.ReplaceAllString(path, "\x01")
	expr = parameter.ReplaceAllString(expr, "\x02")
	expr = strings.NewReplacer("\x01", ".+", "\x02", "[^/]+").Replace(regexp.QuoteMeta(expr))
	return pathTemplate{path, regexp.MustCompile(`\A(?:` + expr + `)\z`), strings.Count(path, "{")}
}

// nullable rewrites OpenAPI 3.0's `nullable: true` as JSON Schema says it.
func nullable(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = nullable(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = nullable(v[k])
		}
		if v["nullable"] == true {
			delete(v, "nullable")
			return map[string]any{"anyOf": []any{map[string]any{"type": "null"}, v}}
		}
	}
	return v
}

type checked struct {
	t *testing.T
	o *oracle
}

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if err := c.o.check(r, res, body); err != nil {
		c.t.Errorf("%s %s %d is not GitHub's shape: %v\n%.600s", r.Method, r.URL.Path, res.StatusCode, err, body)
	}
	return res, nil
}

// documented is the path under which GitHub describes what it also serves
// under an older or undescribed one.
func documented(path string) string {
	path = strings.TrimPrefix(path, "/api/v3")
	if rest, ok := strings.CutPrefix(path, "/organizations/"); ok {
		_, team, _ := strings.Cut(rest, "/team/")
		return "/teams/" + team
	}
	if strings.HasPrefix(path, "/repositories/") {
		return "/repos/acme/access"
	}
	return path
}

func (o *oracle) check(r *http.Request, res *http.Response, body []byte) error {
	path := documented(r.URL.Path)
	i := slices.IndexFunc(o.paths, func(t pathTemplate) bool { return t.match.MatchString(path) })
	if i < 0 {
		return fmt.Errorf("GitHub describes no path like %s", path)
	}
	pointer, found := o.pointer(o.paths[i].path, strings.ToLower(r.Method), res.StatusCode)
	if !found && res.StatusCode < 300 {
		return fmt.Errorf("GitHub describes no answer %d of %s", res.StatusCode, o.paths[i].path)
	}
	if !found && res.StatusCode >= 400 {
		pointer = "/components/schemas/basic-error"
	}
	json := strings.HasPrefix(res.Header.Get("Content-Type"), "application/json")
	if pointer != "" && len(body) > 0 && json {
		return o.validate(pointer, body)
	}
	return nil
}

// pointer finds the schema of an answer; empty when GitHub describes no body.
func (o *oracle) pointer(path, method string, status int) (string, bool) {
	answers, ok := dig(o.doc, "paths", path, method, "responses").(map[string]any)
	answer, described := answers[strconv.Itoa(status)].(map[string]any)
	if !ok || !described {
		return "", false
	}
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(path)
	at := fmt.Sprintf("/paths/%s/%s/responses/%d", escaped, method, status)
	if ref, ok := answer["$ref"].(string); ok {
		at = strings.TrimPrefix(ref, "#")
		answer, _ = dig(o.doc, "components", "responses", filepath.Base(ref)).(map[string]any)
	}
	if dig(answer, "content", "application/json", "schema") == nil {
		return "", true
	}
	return at + "/content/application~1json/schema", true
}

func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func (o *oracle) validate(pointer string, body []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	fragment := strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)
	schema, err := o.compiler.Compile(oracleURL + "#" + fragment)
	if err != nil {
		return fmt.Errorf("compile %s: %w", pointer, err)
	}
	return schema.Validate(value)
}

// The oracle must be able to fail.
func TestOracleRefusesWhatGitHubWouldNotSay(t *testing.T) {
	validating(t)
	o, err := loadOracle()
	if err != nil {
		t.Skip(err)
	}
	pointer, _ := o.pointer("/repos/{owner}/{repo}/pulls/{pull_number}", "get", http.StatusOK)
	if err := o.validate(pointer, []byte(`{"number":1}`)); err == nil {
		t.Fatal("a pull request of one field was accepted")
	}
	pointer, _ = o.pointer("/rate_limit", "get", http.StatusOK)
	if err := o.validate(pointer, []byte(`{"rate":"much"}`)); err == nil {
		t.Fatal("a rate of words was accepted")
	}
}
