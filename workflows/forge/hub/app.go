package hub

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	tokenLife = time.Hour
	jwtLife   = 10 * time.Minute
	jwtSkew   = time.Minute
)

// createInstallationToken gives an App that proves its key a token for an hour.
func createInstallationToken(c *call) error {
	id, err := c.id("id")
	if err != nil {
		return err
	}
	now := c.cfg.Now()
	if !c.cfg.App.verify(bearer(c.r), now) {
		return fail(http.StatusUnauthorized, "A JSON web token could not be decoded")
	}
	bot, ok := c.people.byLogin(c.cfg.App.Bot)
	if id != c.cfg.App.InstallationID || !ok {
		return notFound
	}
	for key, t := range c.tokens {
		if !now.Before(t.expires) {
			delete(c.tokens, key)
		}
	}
	token := "ghs_" + rand.Text()
	c.tokens[tokenKey(token)] = installationToken{user: bot, expires: now.Add(tokenLife)}
	return c.reply(http.StatusCreated, obj{"token": token, "expires_at": stamp(now.Add(tokenLife)),
		"permissions": c.appView()["permissions"], "repository_selection": "selected"})
}

// getApp tells an App that proves its key who it is.
func getApp(c *call) error {
	if !c.cfg.App.verify(bearer(c.r), c.cfg.Now()) {
		return fail(http.StatusUnauthorized, "A JSON web token could not be decoded")
	}
	return c.reply(http.StatusOK, c.appView())
}

// getInstallation tells an App what it may do.
func getInstallation(c *call) error {
	id, err := c.id("id")
	if err != nil {
		return err
	}
	if !c.cfg.App.verify(bearer(c.r), c.cfg.Now()) {
		return fail(http.StatusUnauthorized, "A JSON web token could not be decoded")
	}
	if id != c.cfg.App.InstallationID {
		return notFound
	}
	api, created := c.apiBase(), stamp(c.store.meta.Created)
	return c.reply(http.StatusOK, obj{"id": id, "app_id": c.cfg.App.ID, "app_slug": c.cfg.App.Slug, "account": c.userView(c.owner()),
		"target_id": c.cfg.OwnerID, "target_type": "Organization", "repository_selection": "selected",
		"access_tokens_url": fmt.Sprintf("%s/app/installations/%d/access_tokens", api, id), "repositories_url": api + "/installation/repositories", "html_url": c.htmlBase() + "/settings/installations",
		"permissions": appPermissions, "events": appEvents, "created_at": created, "updated_at": created,
		"single_file_name": nil, "suspended_by": nil, "suspended_at": nil})
}

// asApp lets in whoever may read, and the App by its own proof.
func asApp(do handler) handler {
	return func(c *call) error {
		if !c.cfg.App.verify(bearer(c.r), c.cfg.Now()) {
			if err := c.authenticate(RoleRead); err != nil {
				return err
			}
		}
		return do(c)
	}
}

// verify checks an App's RS256 token: signature, issuer and times.
func (a App) verify(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if a.PublicKey == nil || len(parts) != 3 {
		return false
	}
	var header struct{ Alg string }
	var claims struct {
		Iss      any
		Iat, Exp int64
	}
	if !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) || header.Alg != "RS256" {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(a.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return false
	}
	exp, iat := time.Unix(claims.Exp, 0), time.Unix(claims.Iat, 0)
	return a.isIssuer(claims.Iss) && now.Before(exp) && !iat.After(now.Add(jwtSkew)) && exp.Sub(now) <= jwtLife+jwtSkew
}

func (a App) isIssuer(iss any) bool {
	data, _ := json.Marshal(iss) // a number or a string
	want, _ := json.Marshal(a.ID)
	return strings.Trim(string(data), `"`) == string(want)
}

func decodePart(part string, v any) bool {
	data, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(data, v) == nil
}
