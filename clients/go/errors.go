package seqrec

import (
	"fmt"

	"google.golang.org/grpc/codes"
)

// Error is the error of every method of a Client; take it out with errors.As. A value that the
// model does not take is InvalidArgument, whoever finds it, and a malformed answer is Internal.
type Error struct {
	Code    codes.Code
	Model   string // empty if the connection cannot be set up
	Address string
	Message string
}

func (e *Error) Error() string {
	where := e.Address
	if e.Model != "" {
		where = e.Model + " at " + e.Address
	}
	return fmt.Sprintf("%s: %s: %s", where, e.Code, e.Message)
}
