package identify

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/access"
)

func TestDiagnose(t *testing.T) {
	page := map[string]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page[r.URL.Path] == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(page[r.URL.Path]))
	}))
	t.Cleanup(srv.Close)
	const well = "/.well-known/openid-configuration"
	good := `{"issuer":"` + srv.URL + `","jwks_uri":"` + srv.URL + `/keys"}`
	for _, c := range []struct {
		name, discovery, keys string
		late                  time.Duration
		want                  string
	}{
		{"well", good, `{"keys":[{"use":"sig"},{"use":"enc"}]}`, 0, "ok it publishes its keys (1)"},
		{"our clock is off", good, `{"keys":[{}]}`, time.Minute, "fail its clock and this machine's are "},
		{"no discovery", "", "", 0, "fail discovery at " + srv.URL + ": got 404"},
		{"another issuer", `{"issuer":"https://other.test"}`, "", 0, `fail it calls itself "https://other.test"`},
		{"a web page", "<html>", "", 0, "is not the JSON"},
		{"no keys", good, `{"keys":[{"use":"enc"}]}`, 0, "fail it publishes no key"},
		{"keys elsewhere", `{"issuer":"` + srv.URL + `","jwks_uri":"http://192.0.2.1/keys"}`, "", 0, "want https"},
	} {
		t.Run(c.name, func(t *testing.T) {
			page[well], page["/keys"] = c.discovery, c.keys
			found := Diagnose(t.Context(), Issuer{Name: "okta", URL: srv.URL, Audience: "a", AllowHTTPLoopback: true},
				Options{Now: func() time.Time { return time.Now().Add(c.late) }})
			if all := told(found); !strings.Contains(all, c.want) {
				t.Errorf("want %q in\n%s", c.want, all)
			}
		})
	}
	found := Diagnose(t.Context(), Issuer{Name: "okta", URL: "http://u:hunter2@h", Audience: "a"}, Options{})
	if all := told(found); !strings.Contains(all, "fail issuer") || strings.Contains(all, "hunter2") {
		t.Errorf("want a refusal without the password, got\n%s", all)
	}
}

func told(list []access.Finding) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString(string(f.Level) + " " + f.Say + "\n")
	}
	return b.String()
}
