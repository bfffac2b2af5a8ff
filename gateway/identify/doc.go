// Package identify turns a bearer token into a verified [access.Identity] by
// OpenID Connect: the identity provider signs who somebody is, publishes its
// public keys at its issuer URL, and the gateway needs no secret of it.
//
// Any number of issuers can be configured. A token's own word for who issued
// it ("iss") is read before it is verified, to pick one of them by exact
// match, and for nothing else. Then, in this order: the signature's algorithm
// must be on the issuer's list (only asymmetric ones can be: an HS256 token
// "signed" with a public key, or one with alg none, is refused before anything
// else is looked at), the signature must be by a key that the issuer publishes
// now, and the claims must be meant for us: iss, aud, azp, exp, nbf, iat, sub.
//
// An issuer is asked for its keys when the first of its tokens comes, not at
// start: one that is down makes its own tokens wait ([access.CodeUnavailable])
// and nobody else's.
package identify
