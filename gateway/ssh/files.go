package ssh

import (
	gossh "golang.org/x/crypto/ssh"

	"github.com/tidegate/tidegate/access"
)

func (s *stay) runFiles(*gossh.Request, access.Operation) error {
	return access.Errorf(access.CodeDenied, "Not yet.")
}
