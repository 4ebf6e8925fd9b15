export class Commands { mount() {} }
