// A place for signing in: where a service wants a token, it is asked for here and kept in a cookie that scripts do not see.

export function signIn() {}
