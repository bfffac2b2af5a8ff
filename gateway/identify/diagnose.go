package identify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// Diagnose asks one issuer for its discovery document and its keys, as a
// login would, and compares its clock with ours.
func Diagnose(ctx context.Context, i Issuer, o Options) []access.Finding {
	f := &access.Findings{Part: "issuer " + i.Name}
	i.defaults()
	if err := i.check(); err != nil {
		f.Fail("Correct the block issuer.", "%v", err)
		return f.List
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	d := diagnosis{i, newClient(i, o), o.Now, f}
	keys := d.discover(ctx)
	if keys != "" {
		d.keys(ctx, keys)
	}
	return f.List
}

type diagnosis struct {
	Issuer
	client *http.Client
	now    func() time.Time
	*access.Findings
}

const lookAtIssuer = "Look at url and ca_file of its block, and whether this machine reaches it: nobody logs in meanwhile."

// discover answers with where the keys are.
func (d diagnosis) discover(ctx context.Context) string {
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	asked := d.now()
	date, err := d.get(ctx, strings.TrimSuffix(d.URL, "/")+"/.well-known/openid-configuration", &doc)
	if err != nil {
		d.Fail(lookAtIssuer, "discovery at %s: %v", d.URL, brief(err))
		return ""
	}
	if doc.Issuer != d.URL {
		d.Fail("Write url exactly as the issuer has it.", "it calls itself %s, the configuration says %s", quoted(doc.Issuer), quoted(d.URL))
		return ""
	}
	d.OK("discovery at %s answers", d.URL)
	if at, err := time.Parse(time.RFC1123, date); err == nil {
		d.Clock(at, asked.Add(-time.Second), d.now()) // its Date has whole seconds
	}
	return doc.Keys
}

func (d diagnosis) keys(ctx context.Context, url string) {
	var set struct {
		Keys []struct {
			Use string `json:"use"`
		} `json:"keys"`
	}
	if _, err := d.get(ctx, url, &set); err != nil {
		d.Fail(lookAtIssuer, "its keys at %s: %v", quoted(url), brief(err))
		return
	}
	n := 0
	for _, k := range set.Keys {
		if k.Use == "" || k.Use == "sig" {
			n++
		}
	}
	if n == 0 {
		d.Fail("Ask who runs the issuer.", "it publishes no key that signs, so no token can be checked")
		return
	}
	d.OK("it publishes its keys (%d)", n)
}

// get reads one page of JSON, in the bounds of every fetch, and its Date.
func (d diagnosis) get(ctx context.Context, url string, into any) (date string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("got %s, want 200", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return "", fmt.Errorf("the answer is not the JSON that it should be: %w", err)
	}
	return res.Header.Get("Date"), nil
}
