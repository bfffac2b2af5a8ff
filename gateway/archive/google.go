package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
)

// google is a bucket of Google Cloud Storage, over Google's own client of its
// JSON interface: gocloud.dev's driver stands on the client for gRPC, which
// costs 27 MB of binary.
type google struct {
	objects *storage.ObjectsService
	name    string
}

// openGoogle finds credentials as Google's own tools do. An endpoint is another
// way to the same service.
func openGoogle(ctx context.Context, name, endpoint string) (bucket, error) {
	opts := []option.ClientOption{option.WithScopes(storage.DevstorageReadWriteScope)}
	if endpoint != "" {
		opts = append(opts, option.WithEndpoint(endpoint+"/storage/v1/"))
	}
	s, err := storage.NewService(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("find Google's credentials: %w", err)
	}
	return google{s.Objects, name}, nil
}

func (g google) create(ctx context.Context, key string, r io.Reader) error {
	_, err := g.objects.Insert(g.name, &storage.Object{Name: key, ContentType: contentType}).
		IfGenerationMatch(0). // there is none
		Media(r, googleapi.ContentType(contentType)).Context(ctx).Do()
	if codeOf(err) == http.StatusPreconditionFailed {
		return errThere
	}
	return err
}

func (g google) open(ctx context.Context, key string) (io.ReadCloser, error) {
	res, err := g.objects.Get(g.name, key).Context(ctx).Download()
	if codeOf(err) == http.StatusNotFound {
		return nil, errNone
	}
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (g google) Close() error { return nil }

func codeOf(err error) int {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}
