package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

const maxSaid = 300 // bytes of GitHub's own words in a message

// failed classifies what a call to GitHub came to.
func failed(verb string, err error) error {
	if e := (*access.Error)(nil); errors.As(err, &e) {
		return fmt.Errorf("%s: %w", verb, err)
	}
	code, message := classify(err)
	return &access.Error{Code: code, Message: message, Cause: fmt.Errorf("%s: %w", verb, err)}
}

func classify(err error) (access.Code, string) {
	var answer *github.ErrorResponse
	switch {
	case errors.Is(err, context.Canceled):
		return access.CodeCancelled, "The call to GitHub was given up."
	case errors.As(err, new(*github.RateLimitError)), errors.As(err, new(*github.AbuseRateLimitError)):
		return access.CodeUnavailable, "GitHub's rate limit is used up; Tidegate tries again later."
	case errors.As(err, &answer):
		return ofStatus(answer)
	}
	return access.CodeUnavailable, "GitHub can't be reached; Tidegate tries again."
}

func ofStatus(e *github.ErrorResponse) (access.Code, string) {
	said := "GitHub says: " + clip(visible(e.Message), maxSaid)
	switch status := statusOf(e); {
	case status == http.StatusUnauthorized:
		return access.CodeUnauthenticated, "GitHub does not take Tidegate's credentials; an operator must look at the token or the App's key."
	case status == http.StatusForbidden:
		return access.CodeDenied, "GitHub does not let Tidegate do that; an operator must look at its permissions. " + said
	case status == http.StatusNotFound || status == http.StatusGone:
		return access.CodeNotFound, "GitHub does not have that, or does not show it to Tidegate. " + said
	case status == http.StatusMethodNotAllowed || status == http.StatusConflict:
		return access.CodeConflict, said
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
		return access.CodeUnavailable, fmt.Sprintf("GitHub answered %d; Tidegate tries again.", status)
	}
	return access.CodeInvalid, said
}

func statusOf(err error) int {
	if e := (*github.ErrorResponse)(nil); errors.As(err, &e) && e.Response != nil {
		return e.Response.StatusCode
	}
	return 0
}

func isMissing(err error) bool { return statusOf(err) == http.StatusNotFound }
