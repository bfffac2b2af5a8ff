package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://… of Azure
	_ "gocloud.dev/blob/s3blob"    // s3://… of AWS and of all that speak as it does
	"gocloud.dev/gcerrors"
)

// bucket is what the archive needs of a store.
type bucket interface {
	// create makes an object of all that r gives, or none. Where there is one
	// already it stays as it is: errThere.
	create(ctx context.Context, key string, r io.Reader) error
	// open reads an object; errNone is that there is none.
	open(ctx context.Context, key string) (io.ReadCloser, error)
	Close() error
}

var (
	errThere = errors.New("there is such an object")
	errNone  = errors.New("there is no such object")
)

// Check says what is wrong with a bucket's URL.
func Check(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL")
	case !slices.Contains([]string{"s3", "gs", "azblob", "file"}, u.Scheme):
		return nil, fmt.Errorf("got the scheme %q, want s3, gs, azblob or file", u.Scheme)
	case u.User != nil:
		return nil, errors.New("it holds a login; credentials come from the environment or the SDK's own files")
	case u.Scheme == "file" && (u.Host != "" || u.Path == "" || u.RawQuery != ""):
		return nil, errors.New("a folder is file:///its/path, with nothing after it")
	case u.Scheme != "file" && (u.Host == "" || strings.Trim(u.Path, "/") != ""):
		return nil, errors.New("want the bucket's name after the scheme and no path; ?prefix= is for folders in it")
	}
	return u, checkQuery(u.Scheme, u.Query())
}

// checkQuery refuses what would send recordings in clear text.
func checkQuery(scheme string, q url.Values) error {
	for name := range q {
		if scheme == "gs" && name != "endpoint" && name != "prefix" {
			return fmt.Errorf("got %q, want of gs:// only endpoint and prefix", name)
		}
	}
	if q.Has("disable_https") {
		return errors.New("recordings go over HTTPS alone: leave disable_https out")
	}
	if text := q.Get("endpoint"); text != "" {
		end, err := url.Parse(text)
		if err != nil || end.Host == "" || end.Scheme != "https" && !(end.Scheme == "http" && onLoopback(end.Host)) {
			return errors.New("its endpoint must be https://…; http:// is for this machine alone")
		}
	}
	if q.Get("protocol") == "http" && !onLoopback(q.Get("domain")) {
		return errors.New("recordings go over HTTPS: protocol=http is for this machine alone")
	}
	return nil
}

func onLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	return net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// openBucket also answers with what the names of its objects begin with.
func openBucket(ctx context.Context, text string) (bucket, string, error) {
	u, err := parse(text)
	if err != nil {
		return nil, "", err
	}
	q := u.Query()
	prefix := q.Get("prefix")
	q.Del("prefix")
	if u.Scheme == "s3" && !q.Has("response_checksum_validation") {
		q.Set("response_checksum_validation", "when_required") // copies are compared by their hash; without it the SDK writes to standard error
	}
	u.RawQuery = q.Encode()
	switch u.Scheme {
	case "file":
		return folder(folderPath(u.Path)), "", nil
	case "gs":
		b, err := openGoogle(ctx, u.Host, q.Get("endpoint"))
		return b, prefix, err
	}
	b, err := blob.OpenBucket(ctx, u.String())
	return cloud{b}, prefix, err
}

// ObjectURL is where the copy of a session's recording lies, or will.
func ObjectURL(bucket, session string) string {
	u, err := parse(bucket)
	if err != nil {
		return ""
	}
	u = u.JoinPath(u.Query().Get("prefix") + session + ext)
	u.RawQuery = ""
	return u.String()
}

// cloud is a bucket of gocloud.dev.
type cloud struct{ *blob.Bucket }

func (c cloud) create(ctx context.Context, key string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before Close this drops what was written
	w, err := c.NewWriter(ctx, key, &blob.WriterOptions{ContentType: contentType, IfNotExist: true})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		cancel()
		return errors.Join(err, w.Close())
	}
	err = w.Close()
	if code := gcerrors.Code(err); code == gcerrors.FailedPrecondition || code == gcerrors.AlreadyExists {
		return errThere
	}
	return err
}

func (c cloud) open(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := c.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, errNone
	}
	if err != nil {
		return nil, err // not r: a nil pointer in an interface is not nil
	}
	return r, nil
}

const contentType = "application/octet-stream"
