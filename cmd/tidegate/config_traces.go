package main

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/tidegate/tidegate/access"
)

// readTraces reads where spans go.
func (c *serveConfig) readTraces(b *block) {
	if b == nil {
		return
	}
	endpoint := b.need("endpoint", "the collector's URL for OTLP over HTTP, such as https://otel.internal:4318/v1/traces")
	if u, err := url.Parse(endpoint.text); err != nil || u.Scheme != "http" || !loopback(u.Hostname()) {
		b.httpsURL(endpoint)
	}
	headers := b.text("headers_file")
	c.Traces = tracesConfig{
		Endpoint: endpoint.text, Roots: b.pemCertificates(b.text("ca_file")), Sample: b.fraction("sample"),
	}
	if secret := b.secretFile(headers); !secret.IsZero() {
		var err error
		if c.Traces.Headers, err = readHeaders(secret); err != nil {
			b.errorf(headers.at, "Wrong headers", "Can't use %s: %v.", headers.text, err)
		}
	}
	b.done()
}

// fraction is an optional number above 0 and up to 1.
func (b *block) fraction(name string) float64 {
	v, at, ok := b.eval(name, cty.Number, "a number such as 0.1")
	if !ok {
		return 0
	}
	f, _ := v.AsBigFloat().Float64()
	if f <= 0 || f > 1 {
		b.errorf(at, "Wrong number", "Got %s for %s, want more than 0 and at most 1: the part of the pull requests that is traced.", v.AsBigFloat().Text('g', 10), name)
		return 0
	}
	return f
}

var (
	headerName  = regexp.MustCompile(`\A[A-Za-z0-9-]{1,64}\z`)
	headerValue = regexp.MustCompile(`\A[\x20-\x7e]{1,1000}\z`)
)

// readHeaders reads lines such as "Authorization: Bearer …". The values are
// secrets: no message repeats them.
func readHeaders(text access.Secret) (map[string]string, error) {
	out := map[string]string{}
	number := 0
	for line := range strings.Lines(text.Reveal()) {
		number++
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if value = strings.TrimSpace(value); !ok || !headerName.MatchString(name) || !headerValue.MatchString(value) {
			return nil, fmt.Errorf("line %d is no header, want a line such as `Authorization: Bearer …`", number)
		}
		if _, twice := out[http.CanonicalHeaderKey(name)]; twice {
			return nil, fmt.Errorf("line %d names a header again, want each once", number)
		}
		out[http.CanonicalHeaderKey(name)] = value
	}
	return out, nil
}
