package lease

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/access"
)

// timeout bounds one question; a session that opens waits for it.
const timeout = 15 * time.Second

// dialTimeout bounds reaching the control side: where its machine is gone,
// nothing says no, and a session is to be refused in seconds.
const dialTimeout = 3 * time.Second

// Client asks the control side. It implements gateway.Minter and is safe for
// concurrent use.
type Client struct {
	url  string
	http *http.Client
}

// NewClient makes a client for the control side's door at host:port. The TLS
// configuration proves who we are and whom we ask.
func NewClient(address string, conf *tls.Config) (*Client, error) {
	if conf == nil || len(conf.Certificates) == 0 || conf.RootCAs == nil || conf.InsecureSkipVerify {
		return nil, errors.New("lease client: want TLS with a certificate of ours and the control side's CA")
	}
	conf = conf.Clone()
	conf.MinVersion = tls.VersionTLS13
	return &Client{url: "https://" + address, http: &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{ // no proxy: nobody stands between the two
			DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig: conf, TLSHandshakeTimeout: 5 * time.Second, MaxConnsPerHost: maxInFlight / 2, MaxIdleConnsPerHost: 4,
			IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close gives the connections back.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Lease implements gateway.Minter. A control side that does not answer is
// CodeUnavailable: nothing new opens, and what is open goes on.
func (c *Client) Lease(ctx context.Context, grant access.GrantKey, session string) (access.Lease, error) {
	q := question{grant, session}
	if err := q.check(); err != nil {
		return access.Lease{}, err
	}
	var got credential
	if err := c.ask(ctx, Path, q, &got); err != nil {
		return access.Lease{}, err
	}
	return got.lease(), nil
}

// Certify asks the control side's recording CA to vouch for the key with which
// this gateway signs recordings.
func (c *Client) Certify(ctx context.Context, key ed25519.PublicKey) (Certified, error) {
	var got Certified
	err := c.ask(ctx, CertifyPath, recorderKey{key}, &got)
	return got, err
}

// ask sends one question and reads its answer.
func (c *Client) ask(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make question: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", rand.Text()) // lets the transport ask again where an idle connection had ended
	res, err := c.http.Do(req)
	if err != nil {
		return away(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return refused(res)
	}
	if err := decode(res.Body, maxAnswer, out); err != nil {
		return away(fmt.Errorf("read answer: %w", err))
	}
	return nil
}

func away(err error) error {
	return &access.Error{Code: access.CodeUnavailable,
		Message: "The control side does not answer, so no new session opens; those that are open go on. Try again in a moment.", Cause: err}
}

// refused is the control side's refusal in its own words.
func refused(res *http.Response) error {
	var r refusal
	if err := decode(res.Body, maxQuestion, &r); err != nil {
		return fmt.Errorf("read refusal of status %s: %w", res.Status, err)
	}
	if _, known := statuses[r.Code]; !known || r.Message == "" {
		return fmt.Errorf("the control side failed with status %s: its log has the reason", res.Status)
	}
	return &access.Error{Code: r.Code, Message: r.Message, Cause: errors.New("said by the control side")}
}
